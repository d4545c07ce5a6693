"""``lambda-split bench``: from nothing to a report, and on from where it was ended."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from lambda_split.cli import main
from tests.bench.crossing import crossed

BENCH = [sys.executable, "-m", "lambda_split.cli", "bench"]
SMALL = [
    *("--prompt-tokens", "8", "--max-new-tokens", "4", "--repetitions", "2"),
    *("--splits", "1", "--max-context", "24", "--threads", "1", "--weights", "fp32"),
    *("--link", "loopback", "--link", "rtt=5ms,up=100Mbit,down=100Mbit"),
]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BENCH, *arguments], capture_output=True, text=True, check=False)


def _finished(out: pathlib.Path) -> int:
    try:
        found = json.loads((out / "results.json").read_bytes())
    except FileNotFoundError:
        return 0
    return len(found["measurements"]) + len(found["growths"])


@pytest.mark.slow
def test_it_is_ended_goes_on_and_reports(tmp_path) -> None:
    out = tmp_path / "out"
    first = subprocess.Popen([*BENCH, *SMALL, "--out", str(out)], stderr=subprocess.PIPE, text=True)
    with first:
        try:
            while _finished(out) < 1:
                assert first.poll() is None
                time.sleep(0.05)
            first.send_signal(signal.SIGINT)
            _, told = first.communicate()
        finally:
            first.kill()
    assert first.returncode == 130
    assert "the same command goes on from there" in told
    assert "Traceback" not in told
    done = _finished(out)
    assert 1 <= done < 11
    before = (out / "results.json").read_bytes()

    other = _run(*SMALL, "--repetitions", "3", "--out", str(out))
    assert other.returncode == 2
    assert "is of other settings (repetitions)" in other.stderr
    assert (out / "results.json").read_bytes() == before

    second = _run(*SMALL, "--out", str(out))
    assert second.returncode == 0, second.stderr
    assert "edge-only" not in second.stderr  # was finished
    assert second.stdout.endswith(f"report: {out / 'report.md'}\n")
    names = {"results.json", "report.md", "speed.png", "latency.png", "growth.png"}
    assert {path.name for path in out.iterdir()} == names

    found = json.loads((out / "results.json").read_bytes())
    assert found["measurements"][0] == json.loads(before)["measurements"][0]
    by_case = {
        (each["case"]["mode"], (each["case"]["link"] or {"name": None})["name"]): each
        for each in found["measurements"]
    }
    assert len(by_case) == 7
    assert {each["device_peak_rss"] > 10e6 for each in by_case.values()} == {True}
    split = by_case["split", "loopback"]
    # 11 positions of 384 bytes; 28 for each of 4 frames; 8 or 4 for each WebSocket frame.
    new = {"up": 11 * 384 + 4 * (28 + 8), "down": 11 * 384 + 4 * (28 + 4)}
    found_in = [tuple(each["socket"].values()) for each in split["runs"]]
    assert [crossed(each, **new) for each in found_in] == [True] * 2, found_in
    again = by_case["split-everything", "loopback"]["runs"][0]["socket"]
    everything = (8 + 9 + 10 + 11) * 384
    everything = {"up": everything + 4 * (28 + 8), "down": everything + 4 * (28 + 4)}
    assert crossed((again["up"], again["down"]), **everything), again
    # The whole model in PyTorch takes hundreds of megabytes, a device without it less.
    assert split["server_peak_rss"] > 2 * split["device_peak_rss"]
    assert [point["context"] for point in found["growths"][0]["points"]] == [16]
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "## Predicted" in report
    assert str(tmp_path) not in report
    assert str(pathlib.Path.home()) not in (out / "results.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "how"), [((), "the same command"), (("--restart",), "without --restart")]
)
def test_who_ends_it_is_told_how_it_goes_on(tmp_path, monkeypatch, capsys, arguments, how) -> None:
    def end(_request: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.running.run_benchmark", end)
    assert main(["bench", "--out", str(tmp_path), *arguments]) == 130
    assert f"{how} goes on from there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--link", "rtt=80"), "the link 'rtt=80': '80' is not a number with one of"),
        (("--link", ""), "a link is not empty"),
        (("--link", "speed=1ms"), "a link has no 'speed': it has rtt, jitter, up"),
        (("--link", "rtt=1ms,rtt=2ms"), "rtt is given twice"),
        (("demo-image",), "is a text-to-image pipeline: bench measures language models"),
        (("--modes", "split,fly"), "'fly' is none of edge-only, cloud-only"),
        (("--splits", "1,-1"), "-1 is below 0"),
        (("--bundle", "somewhere"), "give both --bundle and --url"),
        (("--max-new-tokens", "1"), "must be 2 or more"),
        (("--prompt-tokens", "2000"), "take less for --prompt-tokens"),
    ],
)
def test_wrong_use_is_2_and_leaves_nothing(tmp_path, arguments, complaint) -> None:
    out = tmp_path / "out"
    done = _run(*arguments, "--out", str(out))
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stdout == ""
    assert not out.exists()

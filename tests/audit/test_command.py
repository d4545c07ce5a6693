from __future__ import annotations

import argparse
import errno
import json
import pathlib

import pytest

from audit.arguments import (
    PICTURE_OPTIONS,
    TEXT_OPTIONS,
    defence,
    picture_plan,
    text_plan,
)
from audit.command import add_arguments
from audit.defending.noise import Defence
from audit.picture_plan import PicturePlan
from audit.pictures import WHOLE_FORMATS
from audit.reporting.markdown import as_markdown
from audit.results_file import AuditResults, read_results
from audit.text_plan import TextPlan, default_splits
from lambda_split.arguments import split_pair
from lambda_split.cli import main
from lambda_split.errors import OutputNotWritable
from lambda_split.split import Split
from tests.audit.some_results import SAMPLE
from tests.tiny_models import save_tiny
from tests.tiny_pipelines import save_tiny_pipeline

SMALLEST = [
    *("--split", "1,1", "--texts", "2", "--prompt-tokens", "10", "--reply-tokens", "3"),
    *("--known", "200", "--inverter-steps", "10", "--defence", "gaussian:1", "--beams", "1"),
]


def test_a_small_audit_of_a_model_of_one_s_own(tmp_path, capsys) -> None:
    save_tiny("qwen3", tmp_path / "model")
    text = tmp_path / "texts.txt"
    text.write_text("\n\n".join(f"{n * 7919} is the number {'of it ' * 60}" for n in range(20)))
    out = tmp_path / "out"
    arguments = [str(tmp_path / "model"), "--text", str(text), "--out", str(out), *SMALLEST]
    assert main(["audit", *arguments]) == 0
    printed = capsys.readouterr()
    assert printed.out.endswith(f"report: {out / 'report.html'}\n")
    assert "left" in printed.err
    results = json.loads((out / "results.json").read_text())
    assert set(results) == {"text", "pictures"}
    assert results["pictures"] is None
    results = results["text"]
    assert results["text"] == "texts.txt"
    by_attack = {
        (one["attack"], one["setting"]["defence"]): one["recovered"]["value"]
        for one in results["findings"]
    }
    assert by_attack["vocabulary search", "none"] == 1.0
    assert by_attack["public tail", "none"] >= 0.99
    assert ("vocabulary search with prior", "gaussian") in by_attack
    files = {"report.html", "report.md", "results.json", "attacks.png", "defences.png"}
    assert {path.name for path in out.iterdir()} == files
    assert str(tmp_path) not in (out / "results.json").read_text()


def test_a_small_audit_of_a_pipeline_of_one_s_own(tmp_path, capsys) -> None:
    save_tiny_pipeline("sdxl", tmp_path / "painter")
    captions = tmp_path / "captions.txt"
    captions.write_text("a red cat\n\n  a small <b>dog</b>  \na red cat\n")
    out = tmp_path / "out"
    smallest = ["--steps", "2", "--own-pictures", "2", "--search-rounds", "2", "--out", str(out)]
    assert main(["audit", str(tmp_path / "painter"), "--captions", str(captions), *smallest]) == 0
    assert capsys.readouterr().out.endswith(f"report: {out / 'report.html'}\n")
    results = read_results(out / "results.json")
    assert results.text is None
    found = results.pictures
    assert (found.model, found.steps) == ("painter", 2)
    assert found.captions == ("a red cat", "a small <b>dog</b>")
    assert found.prompts.recovered.value == 1.0
    assert found.control.recovered.value < 0.25
    last = [one for one in found.findings if (one.split, one.step) == ("whole", 2)]
    assert [one.likeness.psnr for one in last] == [(None, None)] * len(WHOLE_FORMATS)
    assert {one.own_pictures for one in found.findings} == {0, 2}
    files = {"report.html", "report.md", "results.json", "pictures.png"}
    assert {path.name for path in out.iterdir()} == files
    assert "a small &lt;b&gt;dog&lt;/b&gt;" in (out / "report.html").read_text()
    assert str(tmp_path) not in (out / "results.json").read_text()


def test_options_that_nothing_would_use_are_refused(tmp_path, capsys) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert main(["audit", "demo", "--steps", "4", "--own-pictures", "2", *out]) == 2
    assert (
        "--steps, --own-pictures: only for text-to-image pipelines, and demo is none"
        in capsys.readouterr().err
    )
    assert main(["audit", "demo-image", "--texts", "4", "--train-tail", *out]) == 2
    assert "--texts, --train-tail: only for language models" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_every_option_is_of_one_kind_or_of_both() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = vars(parser.parse_args([]))
    both = {"model", "threads", "out", "overwrite"}
    assert set(given) == both | set(TEXT_OPTIONS) | set(PICTURE_OPTIONS)
    assert not set(TEXT_OPTIONS) & set(PICTURE_OPTIONS)
    assert all(given[name] in {None, False} for name in set(given) - both)


def test_without_options_the_plans_are_the_default_ones() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args([])
    assert text_plan(args, 8) == TextPlan(splits=default_splits(8))
    assert picture_plan(args) == PicturePlan()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file"),
        (b"\n \n", "holds 0 captions"),
        (b"\xff\xfe", "no UTF-8"),
        (b"".join(b"%d\n" % number for number in range(1001)), "holds 1001 captions"),
        (b"a" * (1024 * 1024 + 1), "longer than 1 MiB"),
    ],
    ids=["none", "empty", "no text", "many", "long"],
)
def test_captions_that_cannot_be_used(tmp_path, capsys, content, complaint) -> None:
    captions = tmp_path / "captions.txt"
    if content is not None:
        captions.write_bytes(content)
    arguments = ["--captions", str(captions), "--out", str(tmp_path / "out")]
    assert main(["audit", "demo-image", *arguments]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--steps", "0"], "below 1"),
        (["--candidates", "x"], "not a whole number"),
        (["--split", "1"], "not two numbers of layers"),
        (["--split=-1,1"], "below 0"),
        (["--defence", "magic"], "unknown defence 'magic'"),
        (["--defence", "gaussian"], "needs a strength"),
        (["--defence", "permutation:2"], "has no strength"),
        (["--defence", "gaussian:x"], "not a number"),
        (["--defence", "gaussian:nan"], "more than 0"),
        (["--defence", "d_chi:-1"], "more than 0"),
        (["--defence", "int:9"], "1 to 8 bits"),
        (["--defence", "int:1.5"], "1 to 8 bits"),
        (["--private-ends", "0"], "more than 0"),
        (["--texts", "0"], "below 1"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, complaint, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["audit", *arguments])
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_split_that_the_model_has_not(tmp_path, capsys) -> None:
    assert main(["audit", "demo", "--split", "8,1", "--out", str(tmp_path)]) == 1
    assert "8" in capsys.readouterr().err


def test_what_is_refused_leaves_no_folder(tmp_path, capsys) -> None:
    out = tmp_path / "new" / "out"
    assert main(["audit", str(tmp_path / "nosuch"), "--out", str(out)]) == 1
    assert main(["audit", "demo", "--reply-tokens", "1", "--prompt-tokens", "1", "--out", str(out)])
    assert "prompts of 1 and replies of 1 token: a prompt has" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    # One that was there stays.
    (tmp_path / "mine").mkdir()
    assert main(["audit", str(tmp_path / "nosuch"), "--out", str(tmp_path / "mine")]) == 1
    assert (tmp_path / "mine").is_dir()


@pytest.mark.slow
def test_ctrl_c_during_the_texts_tells_that_pictures_are_untried(
    tmp_path, capsys, monkeypatch
) -> None:
    def stop_at_the_second(_bar, name: str, _share: float) -> None:
        if "2+1" in name:
            raise KeyboardInterrupt

    monkeypatch.setattr("audit.command._Bar.__call__", stop_at_the_second)
    splits = ["--split", "1,1", "--split", "2,1"]
    small = ["--texts", "2", "--prompt-tokens", "6", "--reply-tokens", "2", "--defence", "none"]
    assert main(["audit", *splits, *small, "--out", str(tmp_path / "out")]) == 130
    told = capsys.readouterr().out
    assert "**Ended early.** Not tried: search, tail and replay at 2+1 layers; " in told
    assert "; all attacks on pictures." in told
    assert "all attacks on pictures" in (tmp_path / "out/report.html").read_text("utf-8")
    assert read_results(tmp_path / "out/results.json").pictures is None


def test_a_place_that_is_a_file(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert main(["audit", "--out", str(tmp_path / "file")]) == 1
    assert "file" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told_before_any_work(
    tmp_path, capsys, monkeypatch
) -> None:
    assert main(["audit", "demo", "--out", str(tmp_path / ("x" * 300))]) == 1
    assert "File name too long" in capsys.readouterr().err

    def refuse(*_arguments: object, **_more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert main(["audit", "demo", "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert f"cannot write {tmp_path / 'out'}: Permission denied" in told
    assert "reading the model" not in told
    assert list(tmp_path.iterdir()) == []


def test_the_forms_of_arguments() -> None:
    assert split_pair("4,2") == Split(4, 2)
    assert defence("d_chi:0.5") == Defence("d_chi", 0.5)
    assert defence("none") == Defence()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--reply-tokens", "2000"], "a prompt has at least 4"),
        (["--prompt-tokens", "1"], "a prompt has at least 4"),
        (["--split", "1,1", "--split", "1,1"], "is given twice"),
    ],
)
def test_what_the_model_cannot_do_is_refused(arguments, complaint, tmp_path, capsys) -> None:
    assert main(["audit", "demo", "--out", str(tmp_path), *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_a_report_is_not_replaced_unasked(tmp_path, capsys) -> None:
    (tmp_path / "results.json").write_text("{}")
    assert main(["audit", "demo", "--out", str(tmp_path)]) == 2
    assert "holds a report already" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_text() == "{}"


def test_a_disk_that_fills_up_meanwhile_costs_the_files_only(tmp_path, capsys, monkeypatch) -> None:
    def full(folder: pathlib.Path, _results: object) -> None:
        raise OutputNotWritable(str(folder), "No space left on device")

    monkeypatch.setattr("audit.command._audit_text", lambda _args: SAMPLE)
    monkeypatch.setattr("audit.reporting.writing.write_report", full)
    assert main(["audit", "demo", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "No space left on device" in printed.err
    assert printed.out == as_markdown(AuditResults(text=SAMPLE))

from __future__ import annotations

import json

import pytest

from audit.command import defence, split
from audit.defending.noise import Defence
from lambda_split.cli import main
from lambda_split.split import Split
from tests.tiny_models import save_tiny

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
    assert results["text"] == "texts.txt"
    by_attack = {
        (one["attack"], one["setting"]["defence"]): one["recovered"]["value"]
        for one in results["findings"]
    }
    assert by_attack["vocabulary search", "none"] == 1.0
    assert by_attack["public tail", "none"] >= 0.99
    assert ("vocabulary search with prior", "gaussian") in by_attack
    assert {path.name for path in out.iterdir()} >= {"report.html", "report.md", "results.json"}
    assert str(tmp_path) not in (out / "results.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--split", "1"], "not two whole numbers"),
        (["--split=-1,1"], "not two whole numbers"),
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


def test_a_place_that_is_a_file(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert main(["audit", "--out", str(tmp_path / "file")]) == 1
    assert "file" in capsys.readouterr().err


def test_the_forms_of_arguments() -> None:
    assert split("4,2") == Split(4, 2)
    assert defence("d_chi:0.5") == Defence("d_chi", 0.5)
    assert defence("none") == Defence()

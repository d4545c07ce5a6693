"""The command line itself: help, wrong use, exit codes. What commands do is tested with them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lambda_split.cli import COMMANDS, main


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lambda_split.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_no_arguments_teach(capsys) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name}" in out for name in COMMANDS)
    assert "lambda-split demo" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself_without_torch(name) -> None:
    script = (
        "import sys\nfrom lambda_split.cli import main\n"
        f"try:\n    main([{name!r}, '--help'])\nexcept SystemExit as end:\n    code = end.code\n"
        "heavy = {'torch', 'transformers', 'onnx'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert f"lambda-split {name}" in run.stdout
    assert len(run.stdout.splitlines()) > 8


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("generate",),
        ("generate", "--bundle", "x", "--url", "http://somewhere", "--prompt", "x"),
        ("export",),
        ("serve", "demo", "--dtype", "float8"),
        ("inspect", "x", "--nonsense"),
    ],
)
def test_wrong_use_is_2(arguments) -> None:
    run = _run(*arguments)
    # The bundle 'x' does not exist, but the address is wrong in itself.
    assert run.returncode in ({1, 2} if "http://somewhere" in arguments else {2})
    assert run.stdout == ""
    assert run.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("inspect", "nowhere"), "is not a bundle"),
        (
            ("generate", "--bundle", "nowhere", "--url", "ws://127.0.0.1:1", "--prompt", "x"),
            "is not a bundle",
        ),
        (("export", "./no-such-folder", "--out", "never-made"), "no-such-folder"),
        (("serve", "./no-such-folder", "--port", "0"), "no-such-folder"),
    ],
)
def test_an_error_is_1_with_one_clear_line(arguments, words) -> None:
    run = _run(*arguments)
    assert run.returncode == 1
    assert run.stdout == ""
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("lambda-split: ")
    assert words in last
    assert "Traceback" not in run.stderr


def test_version() -> None:
    run = _run("--version")
    assert run.returncode == 0
    assert run.stdout.startswith("lambda-split ")

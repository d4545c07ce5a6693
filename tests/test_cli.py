"""The command line itself: help, wrong use, exit codes. What commands do is tested with them."""

from __future__ import annotations

import os
import pathlib
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


def _redirected(redirection: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that a shell redirects."""
    command = [sys.executable, "-m", "lambda_split.cli", *arguments]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[1]), **environment},
    )
    return done.returncode, done.stdout, done.stderr


def test_streams_that_were_closed_lead_nowhere() -> None:
    link = ("--bundle", "nowhere", "--url", "ws://127.0.0.1:1")
    for command in ("generate", "chat"):
        code, _, told = _redirected("<&-", command, *link)
        assert code == 1
        assert told.startswith("lambda-split: ")
        assert "is not a bundle" in told
    assert _redirected(">&-", "completion", "bash") == (0, "", "")
    assert _redirected("2>&-", "inspect", "nowhere") == (1, "", "")


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no device that is full")
def test_a_full_disk_behind_stdout_is_an_error_of_one_line() -> None:
    code, _, told = _redirected(">/dev/full", "completion", "bash")
    assert code == 1
    assert told.startswith("lambda-split: ")
    assert "No space left on device" in told
    assert len(told.splitlines()) == 1


def test_a_reader_that_has_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "lambda_split.cli", "completion", "bash"],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_the_terminal_s_encoding_cannot_say_is_escaped() -> None:
    code, shown, told = _redirected("", PYTHONIOENCODING="ascii")
    assert (code, told) == (0, "")
    assert "COMMAND \\u2026" in shown

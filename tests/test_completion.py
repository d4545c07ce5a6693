"""``lambda-split completion``: what Tab offers, asked of a real bash."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import pytest

from lambda_split.cli import COMMANDS, main
from lambda_split.commands.completion import whole_parser

# Calls the function that `complete` registered, as bash does when Tab is pressed.
_ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
"$(complete -p lambda-split | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> pathlib.Path:
    command = [sys.executable, "-m", "lambda_split.cli", "completion", "bash"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    path = tmp_path_factory.mktemp("completion") / "lambda-split"
    path.write_text(done.stdout)
    return path


@pytest.fixture
def offered(script, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.token").touch()

    def ask(*words: str) -> set[str]:
        command = ["bash", "-c", _ASK, "bash", str(script), "lambda-split", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        return set(done.stdout.split())

    return ask


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("",), set(COMMANDS)),
        (("ch",), {"chat"}),
        (("chat", "--max"), {"--max-positions", "--max-new-tokens"}),
        (("chat", "--codec", "f"), {"fp16", "fp32"}),
        (("chat", "--bundle", "f"), {"folder"}),
        (("chat", "--token-file", "fi"), {"file.token"}),
        (("inspect", "f"), {"folder"}),
        (("completion", ""), {"bash", "zsh", "fish"}),
        (("serve", "--tls-c"), {"--tls-cert"}),
    ],
    ids=" ".join,
)
def test_what_tab_offers(offered, words, expected) -> None:
    assert offered(*words) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_every_command_and_option(shell, capsys) -> None:
    assert main(["completion", shell]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in COMMANDS)
    assert all(option in told for option in ("no-history", "tls-cert", "max-new-tokens"))


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_their_script(shell, capsys, tmp_path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    main(["completion", shell])
    path = tmp_path / "script"
    path.write_text(capsys.readouterr().out)
    subprocess.run([shell, "-n", str(path)], check=True)


def test_an_unknown_shell_is_2(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(["completion", "cmd"])
    assert end.value.code == 2
    assert "bash" in capsys.readouterr().err


def test_a_command_whose_extra_is_missing_is_completed_by_name() -> None:
    commands = {
        "there": ("lambda_split.commands.inspect", "it is"),
        "gone": ("no_such_package.command", "it is not"),
    }
    parser = whole_parser(commands)
    assert parser.parse_args(["gone"]).command == "gone"
    assert parser.parse_args(["there", "folder"]).bundle == "folder"


def test_tab_starts_no_python(script) -> None:
    assert "python" not in script.read_text().lower()

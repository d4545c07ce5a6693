"""Print a script that makes the Tab key complete commands, options and files.

The script is complete in itself: Tab starts no Python. Print it again after an update. Commands
whose extra is not installed here are completed by name only.

Try:
  lambda-split completion bash > ~/.local/share/bash-completion/completions/lambda-split
  lambda-split completion zsh > ~/.zfunc/_lambda-split      with ~/.zfunc in fpath, before compinit
  lambda-split completion fish > ~/.config/fish/completions/lambda-split.fish
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping

__all__ = ["add_arguments", "run", "whole_parser"]

_SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("shell", choices=_SHELLS, metavar="SHELL", help="bash, zsh or fish")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import shtab

    from lambda_split.cli import COMMANDS

    commands = {name: (one.module, one.summary) for name, one in COMMANDS.items()}
    sys.stdout.write(shtab.complete(whole_parser(commands), shell=args.shell) + "\n")
    return 0


def whole_parser(commands: Mapping[str, tuple[str, str]]) -> argparse.ArgumentParser:
    """One parser of all commands, which otherwise are loaded one at a time.

    Args:
        commands: To each name its module and its summary.
    """
    parser = argparse.ArgumentParser(prog="lambda-split")
    parser.add_argument("--version", action="store_true", help="show the version")
    subparsers = parser.add_subparsers(dest="command")
    for name, (module, summary) in commands.items():
        command = subparsers.add_parser(name, help=summary, description=summary)
        try:
            importlib.import_module(module).add_arguments(command)
        except ModuleNotFoundError:
            continue  # an extra that is not installed here
        _complete_files(command)
    return parser


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Let Tab offer files and folders where an argument says that it takes one."""
    import shtab

    kinds = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY, "MODEL": shtab.DIRECTORY}
    for action in parser._actions:  # noqa: SLF001  # argparse has no public way to list them
        if isinstance(action.metavar, str) and action.metavar in kinds:
            action.complete = kinds[action.metavar]  # type: ignore[attr-defined]  # shtab's own

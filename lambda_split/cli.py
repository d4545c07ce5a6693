"""The command line: ``lambda-split COMMAND …``.

A command is a module with a docstring, ``add_arguments(parser)`` and ``run(args) -> exit code``. It
is imported only when it is called, so that ``--help`` needs no torch and starts at once.

Exit codes: 0, 1 with one line on stderr for an error, 2 for wrong use, 130 for Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import lambda_split
from lambda_split.errors import LambdaSplitError, MissingExtra, UsageError

__all__ = ["main"]


@dataclass(frozen=True)
class _Command:
    module: str
    summary: str


COMMANDS: Final = {
    "demo": _Command("lambda_split.commands.demo", "a chat and a picture with the shipped models"),
    "export": _Command("export.command", "cut a checkpoint and write a bundle for devices"),
    "inspect": _Command("lambda_split.commands.inspect", "show and check a bundle"),
    "serve": _Command("cloud.command", "serve a checkpoint's trunk"),
    "token": _Command("cloud.token_command", "make a token for a device"),
    "generate": _Command("edge_runtime.commands.generate", "complete one prompt on this device"),
    "chat": _Command("edge_runtime.commands.chat", "chat with a model on this device"),
    "image": _Command("edge_runtime.commands.image", "make a picture from a prompt"),
    "api": _Command("edge_runtime.commands.api", "serve OpenAI's API on this device"),
    "ui": _Command("edge_runtime.commands.ui", "serve a web page on this device"),
    "bench": _Command("bench.command", "measure speed, latency, traffic and memory"),
    "audit": _Command("audit.command", "attack what crosses the wire: what can be seen?"),
    "completion": _Command("lambda_split.commands.completion", "complete commands by Tab"),
}

_EXTRAS: Final = {
    "torch": "cloud",
    "transformers": "cloud",
    "diffusers": "cloud",
    "peft": "cloud",
    "safetensors": "cloud",
    "huggingface_hub": "cloud",
    "prometheus_client": "cloud",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxscript": "export",
    "matplotlib": "bench",
    "psutil": "cloud",
    "sacrebleu": "audit",
    "skimage": "audit",
    "gradio": "ui",
    "starlette": "api",
    "uvicorn": "api",
}

# Commands that need all of an extra, whichever of its modules is found missing first.
_COMMAND_EXTRAS: Final = {
    "export": "export",
    "demo": "export",
    "ui": "ui",
    "bench": "bench",
    "audit": "audit",
}

_EXAMPLES: Final = """\
a first look:
  lambda-split demo

your own model, three machines or one:
  lambda-split export ./my-llama --out ./bundle           where the checkpoint is
  lambda-split serve ./my-llama --port 8765               where the GPU is
  lambda-split generate --bundle ./bundle --url ws://HOST:8765 --prompt "Once upon a time"

'lambda-split COMMAND --help' explains each command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the console script's entry point.

    Args:
        argv: The arguments after the program's name; ``sys.argv`` where None.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _settle_streams()
    try:
        code = _run(arguments)
        sys.stdout.flush()  # here, so that what goes wrong with it is told like all else
    except UsageError as error:
        return _fail(error, 2)
    except LambdaSplitError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of stdout has gone (a pager, `head`): nothing is wrong.
        _give_up_stdout()
        return 0
    except OSError as error:  # such as a full disk behind stdout
        _give_up_stdout()
        return _fail(error, 1)
    return code


def _settle_streams() -> None:
    """Let commands count on three streams that take any text, whoever started this program.

    One that was closed (``<&-``) leads nowhere. What stdout's encoding has no sign for is escaped,
    as Python does on stderr.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115  # for as long as the program runs
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _give_up_stdout() -> None:
    """Point stdout elsewhere where it takes nothing more.

    The interpreter's own flush at exit would complain otherwise.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with contextlib.suppress(OSError):
            sys.stdout.flush()


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in COMMANDS:
        name, *rest = arguments
        try:
            module = importlib.import_module(COMMANDS[name].module)
            parser = argparse.ArgumentParser(
                prog=f"lambda-split {name}",
                description=inspect.cleandoc(module.__doc__ or ""),
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            module.add_arguments(parser)
            code: int = module.run(parser.parse_args(rest))
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            raise MissingExtra(error.name or "", extra=_COMMAND_EXTRAS.get(name, extra)) from error
        return code
    return _top_level(arguments)


def _top_level(arguments: list[str]) -> int:
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:{width}}  {item.summary}" for name, item in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="lambda-split",
        usage="lambda-split [--help] [--version] COMMAND …",
        description="Split inference: head and tail on your device, the trunk in the cloud.\n\n"
        f"commands:\n{listing}",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"lambda-split {lambda_split.__version__}"
    )
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    command = parser.parse_args(arguments[:1]).command
    if command is not None:
        parser.error(f"unknown command {command!r}: choose one of {', '.join(COMMANDS)}")
    parser.print_help()
    return 0


def _fail(error: LambdaSplitError | OSError, code: int) -> int:
    print(f"lambda-split: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())

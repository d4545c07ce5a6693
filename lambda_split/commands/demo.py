"""The whole path on the shipped model, in one go, on this machine.

Serves the demo model's trunk in a process of its own, exports head and tail, and chats: head and
tail run here under onnxruntime without torch, only hidden states cross the socket between.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from types import FrameType

from lambda_split.arguments import positive
from lambda_split.errors import MissingExtra, ProcessFailed, UsageError

__all__ = ["add_arguments", "run"]

_QUESTIONS = ("Tell me a story about a fox and a lantern.", "What did the fox find?")
_NEEDED = ("torch", "transformers", "onnxscript")
_STOP_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--prompt", action="append", metavar="TEXT", help="a chat turn of your own (repeatable)"
    )
    parser.add_argument(
        "--weights",
        default="int4",
        choices=("fp32", "fp16", "int8", "int4"),
        help="format of head and tail on the device (default: int4)",
    )
    parser.add_argument(
        "--max-new-tokens", type=positive, default=200, metavar="N", help="default 200"
    )
    parser.add_argument("--keep", metavar="DIR", help="keep the bundle in this new folder")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    for module in _NEEDED:
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(module, "export")
    if args.keep is not None and pathlib.Path(args.keep).exists():
        raise UsageError(f"{args.keep} exists: --keep wants a new folder")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_ended_by_signals())
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bundle = folder / "bundle" if args.keep is None else pathlib.Path(args.keep)
        _say("1/3 serving the trunk of the demo model in a process of its own")
        serve = ("serve", "demo", "--port", "0", "--log-level", "warning")
        server = stack.enter_context(_process(*serve))
        _say(f"2/3 exporting head and tail as ONNX, {args.weights} weights")
        export = ("export", "demo", "--out", str(bundle), "--weights", args.weights)
        with _process(*export) as exporting:
            exporting.communicate()  # its summary is for people who go on to serve by hand
            if exporting.returncode != 0:
                raise ProcessFailed("the export")
        _say("3/3 chatting: head and tail here, the trunk there")
        _chat(bundle, _wait_for_address(server), args)
    return 0


def _chat(bundle: pathlib.Path, url: str, args: argparse.Namespace) -> None:
    # The one place where shared code runs the device side: a demo shows all of it.
    from edge_runtime import GenerationStats, Message, TextGenerator

    messages: list[Message] = []
    stats: list[GenerationStats] = []
    with TextGenerator.open(bundle, url) as generator:
        for question in args.prompt or _QUESTIONS:
            sys.stdout.write(f"\n> {question}\n")
            messages.append(Message("user", question))
            stream = generator.stream(messages, max_new_tokens=args.max_new_tokens)
            for piece in stream:
                sys.stdout.write(piece)
                sys.stdout.flush()
            sys.stdout.write("\n")
            messages.append(Message("assistant", stream.result.text))
            stats.append(stream.result.stats)
    for number, turn in enumerate(stats, 1):
        sys.stdout.write(f"\nturn {number}: {turn.summary()}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that no child is left behind."""

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "lambda_split.cli", *arguments]
    # A session of its own: Ctrl-C reaches this process alone, which then ends the others.
    process = subprocess.Popen(  # noqa: S603  # our own command line
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _wait_for_address(server: subprocess.Popen[str]) -> str:
    # Ends with the line or with the process: a server that cannot start says why and exits.
    for line in server.stdout or ():
        if match := re.fullmatch(r"listening on (wss?://\S+)\s*", line):
            return match[1]
    raise ProcessFailed("the trunk service")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()

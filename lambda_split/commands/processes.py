"""Processes of a command: other commands of this program, which end with it."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import FrameType

from lambda_split.errors import ProcessFailed

__all__ = ["address_of", "ended_by_signals", "export", "running", "serving"]

_STOP_S = 10.0


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that no child is left behind.

    One that was ignored before stays so: who starts a command with ``nohup`` wants it to go on.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    both = (signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in both if signal.getsignal(number) is not signal.SIG_IGN]
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def serving(model: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Serve a model on a free port inside a ``with`` block.

    The server ends with this process even where that is killed.

    Args:
        model: What ``serve`` serves.
        *options: More options of ``serve``.

    Yields:
        The process, for :func:`address_of` once its address is needed: meanwhile it loads.
    """
    arguments = ["serve", model, "--port", "0", "--log-level", "warning", "--end-with-stdin"]
    arguments += options
    with running("lambda_split.cli", *arguments) as process:
        yield process


def address_of(server: subprocess.Popen[str]) -> str:
    """Wait for a server and return its URL.

    Raises:
        ProcessFailed: it could not start, and has said why on stderr.
    """
    for line in server.stdout or ():
        if match := re.fullmatch(r"listening on (wss?://\S+)\s*", line):
            return match[1]
    raise ProcessFailed("the trunk service")


def export(model: str, folder: str, weights: str) -> None:
    """Export a bundle; the export ends with this process even where that is killed.

    Args:
        model: What ``export`` exports.
        folder: The bundle's, to be made.
        weights: Their format.

    Raises:
        ProcessFailed: it failed, and has said why on stderr.
    """
    arguments = ("export", model, "--out", folder, "--weights", weights, "--end-with-stdin")
    with running("lambda_split.cli", *arguments) as process:
        # Its summary is for people who go on to serve by hand. Not communicate(): that ends stdin.
        if process.stdout is not None:
            process.stdout.read()
        if process.wait() != 0:
            raise ProcessFailed("the export")


@contextlib.contextmanager
def running(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a module of this program inside a ``with`` block; its stdin and stdout are pipes.

    Args:
        module: Its name, as after ``python -m``. It should end when its stdin does: a Ctrl-C that
            comes before this process has noted that it runs leaves it to itself.
        *arguments: Its arguments.
    """
    command = [sys.executable, "-m", module, *arguments]
    # A session of its own: Ctrl-C reaches this process alone, which then ends the others.
    process = subprocess.Popen(  # noqa: S603  # our own command line
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
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
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not written is of no use now
                    pipe.close()

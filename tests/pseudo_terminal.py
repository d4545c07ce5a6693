"""A program on a terminal of its own, typed at as a person would."""

from __future__ import annotations

import codecs
import contextlib
import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping

__all__ = ["ALT_ENTER", "CTRL_C", "CTRL_D", "ENTER", "UP", "PseudoTerminal", "on_terminal"]

_PATIENCE_S = 120.0
_SECOND_PRESS_S = 10.0
CTRL_C, CTRL_D, UP, ENTER, ALT_ENTER = "\x03", "\x04", "\x1b[A", "\r", "\x1b\r"


class PseudoTerminal:
    """The keyboard and the screen of one program.

    Attributes:
        shown: All that was ever shown, escape sequences included.
    """

    def __init__(self, pid: int, descriptor: int) -> None:
        self._pid = pid
        self._descriptor = descriptor
        self._seen = 0
        self.shown = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end in a character

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until something is shown that was not expected before."""
        match = self._await(pattern, time.monotonic() + _PATIENCE_S)
        assert match, f"{pattern!r} is not in {self.shown[self._seen :]!r}"
        return match

    def interrupt(self, pattern: str) -> None:
        """Press Ctrl-C at a prompt, and wait until something is shown for it.

        Python's line editor sleeps on over a signal that comes between its prompt and its sleep; a
        second one wakes it, and counts as the same. A person would press again, too.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            self.type(CTRL_C)
            if self._await(pattern, time.monotonic() + _SECOND_PRESS_S):
                return
        raise AssertionError(f"{pattern!r} is not in {self.shown[self._seen :]!r}")

    def _await(self, pattern: str, deadline: float) -> re.Match[str] | None:
        compiled = re.compile(pattern, re.DOTALL)
        while (match := compiled.search(self.shown, self._seen)) is None:
            if not self._read(deadline):
                return None
        self._seen = match.end()
        return match

    def end(self) -> int:
        """Wait for the program's end; its exit code, or minus the signal that ended it."""
        deadline = time.monotonic() + _PATIENCE_S
        while self._read(deadline):
            pass
        pid, self._pid = self._pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def close(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._descriptor)

    def _read(self, deadline: float) -> bool:
        """Take what is shown next; False where the program has ended, or takes too long."""
        if not select.select([self._descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:  # how Linux tells that nobody has the other end open
            return False
        self.shown += self._decoder.decode(data)
        return bool(data)


@contextlib.contextmanager
def on_terminal(*arguments: str, environment: Mapping[str, str]) -> Iterator[PseudoTerminal]:
    """Run ``lambda-split`` with its input, output and errors on a terminal."""
    command = [sys.executable, "-m", "lambda_split.cli", *arguments]
    pid, descriptor = pty.fork()
    if pid == 0:
        try:
            os.execve(sys.executable, command, environment)  # noqa: S606  # no shell is wanted
        finally:
            os._exit(127)
    terminal = PseudoTerminal(pid, descriptor)
    try:
        yield terminal
    finally:
        terminal.close()

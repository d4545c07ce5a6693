"""An end that nobody has to ask for: programs that end with whoever started them."""

from __future__ import annotations

import os
import signal
import threading

__all__ = ["end_with_stdin"]

_STDIN = 0
_READ_BYTES = 4096


def end_with_stdin() -> None:
    """End this process as SIGTERM does once its stdin ends; what arrives there is ignored.

    A pipe ends when all who could write to it are gone, however they went: killed, too, or
    interrupted before they knew that they had started anything.
    """
    threading.Thread(target=_wait_and_end, name="end-with-stdin", daemon=True).start()


def _wait_and_end() -> None:
    try:
        # Not sys.stdin: its lock, held while it waits, would be missed by the interpreter's end.
        while os.read(_STDIN, _READ_BYTES):
            pass
    except OSError:
        pass  # closed from the start: nobody is there
    os.kill(os.getpid(), signal.SIGTERM)

"""Commands that serve until they are told to stop."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence

__all__ = ["listening"]


@contextlib.contextmanager
def listening(command: Sequence[str]) -> Iterator[str]:
    """Run one inside a ``with`` block; what it says where. Its end must be a good one."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        match = re.fullmatch(r"listening on (http://\S+)\n", line)
        assert match, line
        yield match[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()

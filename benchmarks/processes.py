"""Run a command and learn what it cost: seconds and peak memory."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass

__all__ = ["Cost", "measure"]


@dataclass(frozen=True)
class Cost:
    """What a finished process took: wall seconds and peak resident memory in bytes."""

    seconds: float
    peak_rss: int


def measure(*command: str) -> Cost:
    """Run a command to its end; raises where it fails."""
    begin = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(time.perf_counter() - begin, usage.ru_maxrss * 1024)

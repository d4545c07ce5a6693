"""The most memory that a process has had."""

from __future__ import annotations

import pathlib
import re

__all__ = ["peak_rss"]


def peak_rss(pid: int | None = None) -> int:
    """Peak resident memory in bytes; what it has now, on systems that do not tell the peak.

    ``getrusage`` would not do: on Linux a child begins with its parent's peak.

    Args:
        pid: The process; this one where None.
    """
    try:
        status = pathlib.Path(f"/proc/{pid or 'self'}/status").read_text(encoding="ascii")
    except OSError:
        status = ""
    if (match := re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)) is not None:
        return int(match[1]) * 1024
    import psutil

    resident: int = psutil.Process(pid).memory_info().rss
    return resident

"""What is measured of a server from outside: memory, descriptors, and what its log complains of."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import psutil

__all__ = ["PeakMemory", "Vitals", "complaints", "percentile", "settled", "vitals", "wait_until"]

# A log that has one of these tells of something that nobody foresaw. "incident" numbers a fault.
_COMPLAINT = re.compile(
    r"Traceback|[Uu]nhandled|never retrieved|never awaited|incident|unexpected internal error"
    r"|handler failed|--- Logging error|Segmentation|core dumped"
)


@dataclass(frozen=True)
class Vitals:
    """A process at one moment.

    Attributes:
        rss: Resident memory in bytes.
        descriptors: Open files and sockets.
    """

    rss: int
    descriptors: int


def vitals(pid: int) -> Vitals:
    """How a process is now."""
    process = psutil.Process(pid)
    return Vitals(process.memory_info().rss, process.num_fds())


class PeakMemory:
    """The largest resident memory of a process inside a ``with`` block, looked at often."""

    def __init__(self, pid: int, every_s: float = 0.1) -> None:
        self._process = psutil.Process(pid)
        self._every_s = every_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.rss = self._process.memory_info().rss

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(self._every_s):
            try:
                self.rss = max(self.rss, self._process.memory_info().rss)
            except psutil.NoSuchProcess:
                return


def complaints(log: str) -> list[str]:
    """The lines of a log that tell of a fault in the server itself."""
    return [line for line in log.splitlines() if _COMPLAINT.search(line)]


def settled(pid: int, *, quiet_s: float = 2.0, timeout_s: float = 20.0) -> Vitals:
    """How a process is once it has opened and closed nothing for a while."""
    begin = changed_at = time.monotonic()
    now = vitals(pid)
    while time.monotonic() < min(changed_at + quiet_s, begin + timeout_s):
        time.sleep(0.1)
        before, now = now, vitals(pid)
        if now.descriptors != before.descriptors:
            changed_at = time.monotonic()
    return now


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of them do not exceed; NaN where there are none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for something to become true; whether it did."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True

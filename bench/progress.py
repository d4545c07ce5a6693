"""How far a benchmark has come and how long it still takes, on stderr."""

from __future__ import annotations

import sys
import time
from typing import TextIO

__all__ = ["BenchProgress", "ExportStages", "remaining_s"]


def remaining_s(elapsed_s: float, done: float, total: float) -> float | None:
    """The time that is left, where the rest goes as fast as what was done; None at the start.

    Args:
        elapsed_s: So far.
        done: Work that is done.
        total: All of it, in the same unit.
    """
    return elapsed_s * (total - done) / done if done > 0 else None


class BenchProgress:
    """A bar on a terminal, lines elsewhere.

    Args:
        total: The work to do, in estimated seconds.
        stream: Where it is shown.
    """

    def __init__(self, total: float, stream: TextIO | None = None) -> None:
        from tqdm import tqdm

        self._stream = sys.stderr if stream is None else stream
        self._total = total
        self._done = 0.0
        self._begin = time.monotonic()
        self._bar = tqdm(
            total=total,
            file=self._stream,
            leave=False,
            disable=not self._stream.isatty(),
            bar_format="{percentage:3.0f}% |{bar}| {elapsed} gone, {remaining} left, {desc}",
        )

    def begin(self, name: str) -> None:
        """Tell what is being done now."""
        self._bar.set_description_str(name)
        if self._bar.disable:
            left = remaining_s(time.monotonic() - self._begin, self._done, self._total)
            about = "" if left is None else f" (about {left:.0f} s left)"
            self._stream.write(f"{name}{about}\n")
            self._stream.flush()

    def done(self, work: float) -> None:
        """Count finished work."""
        self._done += work
        self._bar.update(work)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()


class ExportStages:
    """Shows the stages of an export as what is being done; its steps are not counted."""

    def __init__(self, progress: BenchProgress) -> None:
        self._progress = progress

    def stage(self, name: str, steps: int) -> None:
        """Tell of the next stage."""
        self._progress.begin(f"export: {name}, {steps} step{'s' * (steps != 1)}")

    def advance(self) -> None:
        """Ignored."""

    def close(self) -> None:
        """Ignored: the benchmark goes on."""

"""How export tells what it is doing."""

from __future__ import annotations

import sys
from typing import Protocol

__all__ = ["Progress", "QuietProgress", "TqdmProgress"]


class Progress(Protocol):
    """A listener; one stage runs at a time, in the order in which they are announced."""

    def stage(self, name: str, steps: int) -> None:
        """A stage begins that will advance ``steps`` times; the one before it has ended."""
        ...

    def advance(self) -> None:
        """One step of the current stage is done."""
        ...

    def note(self, text: str) -> None:
        """A line that the user should see, for example the measured error."""
        ...

    def close(self) -> None:
        """The export has ended, in success or failure."""
        ...


class QuietProgress:
    """Says nothing; for tests and for callers that are programs."""

    def stage(self, name: str, steps: int) -> None:
        """Ignored."""

    def advance(self) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""

    def close(self) -> None:
        """Ignored."""


class TqdmProgress:
    """One bar a stage on stderr, so that stdout stays free for results."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._tqdm = tqdm
        self._bar: tqdm | None = None

    def stage(self, name: str, steps: int) -> None:
        """Finish the last bar and begin a new one."""
        self.close()
        self._bar = self._tqdm(total=steps, desc=name, file=sys.stderr, unit="step")

    def advance(self) -> None:
        """Move the bar by one."""
        if self._bar is not None:
            self._bar.update(1)

    def note(self, text: str) -> None:
        """Write a line above the bar."""
        self._tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leave the finished bar on the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

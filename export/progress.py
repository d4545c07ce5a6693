"""How export tells what it is doing."""

from __future__ import annotations

import sys
from typing import Protocol, TextIO

__all__ = ["LineProgress", "Progress", "QuietProgress", "TqdmProgress", "progress_on_stderr"]


class Progress(Protocol):
    """A listener; one stage runs at a time, in the order in which they are announced."""

    def stage(self, name: str, steps: int) -> None:
        """A stage begins that will advance ``steps`` times; the one before it has ended."""
        ...

    def advance(self) -> None:
        """One step of the current stage is done."""
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

    def close(self) -> None:
        """Ignored."""


class LineProgress:
    """A line when a stage begins; for log files and pipes.

    Args:
        stream: Where the lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def stage(self, name: str, steps: int) -> None:
        """Write the stage's name."""
        del steps
        self._stream.write(f"{name} …\n")
        self._stream.flush()

    def advance(self) -> None:
        """Ignored."""

    def close(self) -> None:
        """Ignored."""


class TqdmProgress:
    """One bar that shows the current stage and disappears at the end; for terminals.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        from tqdm import tqdm

        self._tqdm = tqdm
        self._stream = stream
        self._bar: tqdm | None = None

    def stage(self, name: str, steps: int) -> None:
        """Show the next stage in place of the last one."""
        self.close()
        self._bar = self._tqdm(total=steps, desc=name, file=self._stream, unit="step", leave=False)

    def advance(self) -> None:
        """Move the bar by one."""
        if self._bar is not None:
            self._bar.update(1)

    def close(self) -> None:
        """Remove the bar from the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def progress_on_stderr() -> Progress:
    """Bars if stderr is a terminal, lines otherwise; stdout stays free for results."""
    return TqdmProgress(sys.stderr) if sys.stderr.isatty() else LineProgress(sys.stderr)

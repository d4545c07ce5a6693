"""Ctrl-C ends what is going on, and never what it is part of."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

__all__ = ["Interrupts"]


class Interrupts:
    """Inside a ``with`` block, SIGINT raises ``KeyboardInterrupt`` where that was asked for only.

    Between two such places it would end the program, and with it the conversation; and a second one
    would break off what the first one had to tidy up. There it does nothing.
    """

    def __init__(self) -> None:
        self._breaks = False

    @contextlib.contextmanager
    def governed(self) -> Iterator[None]:
        """Take SIGINT over for as long as the block lasts; in the main thread only."""
        before = signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextlib.contextmanager
    def breaking(self) -> Iterator[None]:
        """Here one SIGINT raises ``KeyboardInterrupt``."""
        self._breaks = True
        try:
            yield
        finally:
            self._breaks = False

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._breaks:
            self._breaks = False
            raise KeyboardInterrupt

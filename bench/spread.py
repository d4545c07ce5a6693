"""The middle of repeated figures, and how far they lie apart."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Spread"]


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of some figures."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Spread:
        """The spread of figures, at least one."""
        listed = sorted(figures)
        return cls(statistics.median(listed), listed[0], listed[-1])

    def text(self, form: str = ".1f", scale: float = 1.0) -> str:
        """As ``median (low – high)``."""
        middle, low, high = (
            format(figure * scale, form) for figure in (self.median, self.low, self.high)
        )
        return f"{middle} ({low} – {high})"

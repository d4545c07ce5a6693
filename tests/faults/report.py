"""What a scenario found, and what of it is a fault."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tests.faults.crowd import Tally

__all__ = ["Report", "header"]

_MB = 1 << 20
_SLOWER = 1.5
_GROWTH = 1.05


@dataclass
class Report:
    """One scenario, seen from outside.

    Attributes:
        name: The scenario's.
        seconds: How long it took.
        tally: What the honest devices saw.
        quiet_p99: Their seconds per token before it began; NaN where nothing was timed.
        p99: The same while it went on.
        warm: The server's resident bytes before; 0 where the server did not live through it.
        peak: The most during it.
        after: Afterwards, when everybody had gone.
        descriptors: The server's open descriptors with nobody connected, before and after.
        complaints: Lines of its log that tell of a fault in it.
        serves: Whether a generation came out right afterwards.
        events: How often whatever the scenario does was done.
    """

    name: str
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)
    quiet_p99: float = math.nan
    p99: float = math.nan
    warm: int = 0
    peak: int = 0
    after: int = 0
    descriptors: tuple[int, int] = (0, 0)
    complaints: list[str] = field(default_factory=list)
    serves: bool = False
    events: int = 0

    def harm(self) -> list[str]:
        """What must not be, on however slow a machine."""
        found = [f"wrong: {text}" for text in self.tally.wrong]
        found += [f"lost: {text}" for text in self.tally.lost]
        found += [f"log: {line}" for line in self.complaints]
        if self.descriptors[1] > self.descriptors[0]:
            found.append("descriptors: {} before, {} after".format(*self.descriptors))
        if not self.serves:
            found.append("the server does not serve any more")
        if not self.tally.generations:
            found.append("no generation came to its end")
        if not self.events:
            found.append("nothing was done to the server")
        return found

    def excess(self) -> list[str]:
        """What is more than it should be, in time and memory: for a quiet machine to judge."""
        found = []
        if math.isnan(self.p99) and not math.isnan(self.quiet_p99):
            found.append("no token came while it went on")
        if self.p99 > _SLOWER * self.quiet_p99:
            found.append(f"p99 is {self.p99 / self.quiet_p99:.2f} × undisturbed")
        if self.after > _GROWTH * self.warm > 0:
            found.append(f"memory grew to {self.after / self.warm:.3f} × what it was")
        return found

    def line(self) -> str:
        """A row under :func:`header`."""
        return (
            f"{self.name:<13}{self.seconds:>6.0f}{self.events:>8}{self.tally.generations:>7}"
            f"{self.tally.tokens:>8}{len(self.tally.wrong):>6}{len(self.tally.lost):>5}"
            f"{self.tally.reconnects:>7}{self.tally.waits:>6}"
            f"{_ms(self.quiet_p99):>9}{_ms(self.p99):>9}"
            f"{self.warm / _MB:>8.0f}{self.peak / _MB:>8.0f}{self.after / _MB:>8.0f}"
            f"{self.descriptors[0]:>5}{self.descriptors[1]:>5}"
        )


def header() -> str:
    """The names of the columns: times in ms, memory in MB, descriptors before and after."""
    return (
        f"{'scenario':<13}{'s':>6}{'events':>8}{'gens':>7}{'tokens':>8}{'wrong':>6}{'lost':>5}"
        f"{'replay':>7}{'waits':>6}{'p99':>9}{'p99 then':>9}{'RSS':>8}{'peak':>8}{'after':>8}"
        f"{'fd':>5}{'fd':>5}"
    )


def _ms(seconds: float) -> str:
    return "–" if math.isnan(seconds) else f"{seconds * 1000:.1f}"

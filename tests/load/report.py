"""What a load run saw, added up over its clients."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from tests.load.reference import Deviation

__all__ = ["Report"]


@dataclass
class Report:
    """Counts, and everything that was not as it should be.

    Attributes:
        generations: Those that were compared with the reference, left ones included.
        tokens: Sampled in them.
        cancels: Streams that were left early.
        sessions: Sessions opened.
        rollbacks: Generations that began by cutting a session back to a common beginning.
        reconnects: Times a connection was lost and the session replayed.
        evictions: Those where the server had given the session's memory to another.
        refusals: Times that a server was full when a session was to be opened.
        deviations: Outputs that differ from the reference.
        failures: What clients met that they should not have.
        seconds: How long it took.
    """

    generations: int = 0
    tokens: int = 0
    cancels: int = 0
    sessions: int = 0
    rollbacks: int = 0
    reconnects: int = 0
    evictions: int = 0
    refusals: int = 0
    deviations: list[Deviation] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: Report) -> None:
        """Add another's figures to these."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))

    @property
    def differences(self) -> list[Deviation]:
        """Outputs that no rounding explains."""
        return [deviation for deviation in self.deviations if not deviation.is_rounding]

    @property
    def rounding(self) -> list[Deviation]:
        """Outputs that rounding explains."""
        return [deviation for deviation in self.deviations if deviation.is_rounding]

    @property
    def is_exact(self) -> bool:
        """Whether every output is the reference's, rounding aside, and nothing else went wrong."""
        return not self.differences and not self.failures

    def summary(self) -> str:
        """A Markdown table, and a line for each thing that stands out."""
        counts = {
            "generations": self.generations,
            "tokens": self.tokens,
            "sessions opened": self.sessions,
            "streams left early": self.cancels,
            "rollbacks": self.rollbacks,
            "reconnects": self.reconnects,
            "… of them evictions": self.evictions,
            "refusals": self.refusals,
            "differences": len(self.differences),
            "rounding cases": len(self.rounding),
            "failures": len(self.failures),
            "seconds": round(self.seconds),
        }
        lines = ["| | |", "|---|---|", *(f"| {name} | {n:,} |" for name, n in counts.items())]
        lines += [f"rounding: {deviation}" for deviation in self.rounding]
        for deviation in self.differences:
            lines.append(f"DIFFERENCE: {deviation}")
            lines.append(f"  found    {deviation.found}")
            lines.append(f"  expected {deviation.expected}")
        lines += [f"FAILURE: {failure}" for failure in self.failures]
        return "\n".join(lines)

"""How full a replica is, as it tells Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

__all__ = ["Load", "Loaded", "measure"]


@dataclass(frozen=True, kw_only=True)
class Load:
    """What placing and scaling look at.

    Attributes:
        sessions: Open sessions.
        max_sessions: The most that may be open.
        free_positions: Positions for whose keys and values there is room.
        total_positions: Room there is in all.
        seen: For each gateway the number of its last question that was answered by then: the
            sessions of later ones are not in these figures.
    """

    sessions: int
    max_sessions: int
    free_positions: int
    total_positions: int
    seen: Mapping[str, int] = field(default_factory=dict)

    @property
    def used(self) -> float:
        """The scarcer of both resources, memory and places: 0 where free, 1 where full."""
        memory = 1.0 - self.free_positions / self.total_positions
        return max(memory, self.sessions / self.max_sessions)

    def to_stats(self) -> dict[str, Any]:
        """As Ray carries it."""
        return asdict(self)

    @classmethod
    def from_stats(cls, stats: Mapping[str, Any]) -> Load | None:
        """Read :meth:`to_stats`; None where a replica has not said anything yet."""
        if not stats:
            return None
        return cls(**stats)


class Loaded(Protocol):
    """What is asked of an engine, and ``pool_use`` where it has one."""

    @property
    def open_sessions(self) -> int:
        """Sessions that hold memory."""
        ...


def measure(
    engine: Loaded, *, max_sessions: int, max_positions: int, seen: Mapping[str, int]
) -> Load:
    """How full an engine is now.

    An engine with a pool of blocks says itself how many are free (``pool_use``). For one whose
    sessions are counted with all the positions that they may come to hold, that is what counts.

    Args:
        engine: Any. Read from another thread than its own: numbers only.
        max_sessions: The most sessions that it takes.
        max_positions: The most positions of one.
        seen: See :class:`Load`.
    """
    sessions = engine.open_sessions
    use = getattr(engine, "pool_use", None)
    if use is None:
        total, used, size = max_sessions, sessions, max_positions
    else:
        total, used, size = use.total_blocks, use.used_blocks, use.block_positions
    return Load(
        sessions=sessions,
        max_sessions=max_sessions,
        free_positions=max(0, total - used) * size,
        total_positions=max(1, total * size),
        seen=dict(seen),
    )

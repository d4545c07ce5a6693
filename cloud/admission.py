"""Who makes room for whom: the rules, without doing it.

Nothing is lost when a session loses its place: its device replays. But it costs, so those go first
whom it costs least, and those who were let in first are never driven out by those who came later.
Otherwise two sessions that don't fit together would drive each other out forever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cloud.engine.contract import SessionCache

__all__ = ["Standing", "Waiting", "gives_way", "longest_idle"]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How much may wait, and for how long others keep their place.

    Attributes:
        max_positions: Positions that may wait in all; while there are more, no session is opened.
        evict_idle_s: Seconds for which a session must have been idle to make room for another.
    """

    max_positions: int = 65536
    evict_idle_s: float = 10.0


@dataclass(slots=True)
class Standing:
    """What counts when room is needed.

    Attributes:
        session: Whose it is.
        admitted: Ascending number of its admission.
        idle_since: When its last forward was done, in seconds of a monotonic clock.
        busy: It has forwards waiting.
    """

    session: SessionCache
    admitted: int
    idle_since: float
    busy: bool = False


def longest_idle(
    standings: Iterable[Standing], now: float, at_least_s: float
) -> SessionCache | None:
    """The session that has been idle longest, if for so many seconds; None if there is none."""
    idle = (each for each in standings if not each.busy and now - each.idle_since >= at_least_s)
    found = min(idle, key=lambda each: each.idle_since, default=None)
    return None if found is None else found.session


def gives_way(standings: Iterable[Standing], requester: SessionCache) -> SessionCache:
    """Who loses its place so that ``requester`` or those before it can go on.

    The session that was admitted last, which may be the requester itself.
    """
    found = max(standings, key=lambda each: each.admitted, default=None)
    return requester if found is None else found.session

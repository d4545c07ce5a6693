"""The open sessions, and which of them makes room for a new one.

A device may stay connected for as long as it likes. Where there is no room for another session, the
one that has been idle longest loses its place: its device loses nothing, since it reconnects and
replays by itself when it goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field

from cloud.engine import SessionCache
from cloud.scheduler import Scheduler
from lambda_split.errors import CapacityRefused

__all__ = ["OpenSession", "OpenSessions"]

_logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class OpenSession:
    """A session that holds memory.

    Attributes:
        cache: Its place in the engine.
        in_flight: Forwards that have come and are not answered yet.
        idle_since: When the last one was answered, in seconds of the monotonic clock.
        evicted: Set when it has lost its place.
    """

    cache: SessionCache
    in_flight: int = 0
    idle_since: float = field(default_factory=time.monotonic)
    evicted: asyncio.Event = field(default_factory=asyncio.Event)

    def answered(self) -> None:
        """One of the forwards in flight has its answer."""
        self.in_flight -= 1
        self.idle_since = time.monotonic()


class OpenSessions:
    """The sessions of one server. Used in the event loop only.

    Args:
        scheduler: Opens and closes their caches.
        evict_idle_s: Seconds for which a session must have been idle to lose its place.
    """

    def __init__(self, scheduler: Scheduler, evict_idle_s: float) -> None:
        self._scheduler = scheduler
        self._evict_idle_s = evict_idle_s
        self._open: set[OpenSession] = set()

    async def open(self, layers: range, max_positions: int) -> OpenSession:
        """Open a session, if need be in the place of others; see :meth:`Engine.open`.

        Raises:
            CapacityRefused: there is no room, and nobody has been idle for long enough.
        """
        while True:
            try:
                cache = await self._scheduler.open(layers, max_positions)
            except CapacityRefused:
                if not self._evict_one():
                    raise
            else:
                session = OpenSession(cache)
                self._open.add(session)
                return session

    def close(self, session: OpenSession) -> None:
        """Free a session's memory; closing twice is harmless."""
        self._open.discard(session)
        self._scheduler.close(session.cache)

    def _evict_one(self) -> bool:
        idle = [session for session in self._open if session.in_flight == 0]
        longest = min(idle, key=lambda session: session.idle_since, default=None)
        if longest is None or time.monotonic() - longest.idle_since < self._evict_idle_s:
            return False
        _logger.info("the session that is idle longest makes room for another")
        longest.evicted.set()
        self.close(longest)
        return True

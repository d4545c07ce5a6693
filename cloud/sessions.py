"""A connection's session: its place in the engine, and the news that it has lost it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from cloud.engine import SessionCache
from cloud.scheduler import Scheduler

__all__ = ["OpenSession", "open_session"]


@dataclass(frozen=True, eq=False, slots=True)
class OpenSession:
    """A session that holds memory.

    Attributes:
        cache: Its place in the engine.
        evicted: Set when it has lost its place.
    """

    cache: SessionCache
    evicted: asyncio.Event = field(default_factory=asyncio.Event)


async def open_session(scheduler: Scheduler, make_room: Callable[[], SessionCache]) -> OpenSession:
    """Open a session, if need be in the place of one that is idle; see :meth:`Scheduler.open`.

    Args:
        scheduler: Of the server.
        make_room: The engine's way to open it.

    Raises:
        CapacityRefused: there is no room, and nobody has been idle for long enough.
    """
    loop = asyncio.get_running_loop()
    evicted = asyncio.Event()
    cache = await scheduler.open(make_room, on_evicted=lambda: _set(loop, evicted))
    return OpenSession(cache, evicted)


def _set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(event.set)

"""Work that a person may stop, or that nobody waits for any more, taken as it comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import TypeVar

__all__ = ["Stops", "until_stopped"]

Item = TypeVar("Item", bound=object)


class Stops:
    """Which browser tab's work is to stop; belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Event] = {}

    @contextlib.contextmanager
    def running(self, tab: str) -> Iterator[asyncio.Event]:
        """While a tab's work runs; the event is set when it should stop.

        What the same tab began before stops: it has one piece of work at a time.
        """
        self.stop(tab)
        event = self._running[tab] = asyncio.Event()
        try:
            yield event
        finally:
            if self._running.get(tab) is event:
                del self._running[tab]

    def stop(self, tab: str) -> None:
        """Stop a tab's work, where there is any."""
        event = self._running.get(tab)
        if event is not None:
            event.set()


async def until_stopped(
    items: AsyncGenerator[Item, None], stop: asyncio.Event, *, tick_s: float
) -> AsyncGenerator[Item | None, None]:
    """Items as they come, until they end or are stopped.

    Args:
        items: None of them is None; closed at the end.
        stop: Set when no more is wanted.
        tick_s: None is yielded whenever nothing has come for so long, for who waits to say so.
    """
    stopping = asyncio.create_task(stop.wait())
    coming: asyncio.Task[Item | None] | None = None
    try:
        while True:
            if coming is None:
                coming = asyncio.create_task(_next(items))
            both = {coming, stopping}
            await asyncio.wait(both, timeout=tick_s, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                return
            if not coming.done():
                yield None
                continue
            ended, coming = coming, None
            if (item := ended.result()) is None:
                return
            yield item
    finally:
        stopping.cancel()
        if coming is not None:
            coming.cancel()
            # Whatever it ends with, its end is all that counts now.
            await asyncio.gather(coming, return_exceptions=True)
        await items.aclose()


async def _next(items: AsyncGenerator[Item, None]) -> Item | None:
    """The next item, None at the end."""
    return await anext(items, None)

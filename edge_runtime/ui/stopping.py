"""Work that a person may stop, or that nobody waits for any more, taken as it comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import TypeVar

__all__ = ["Stops", "Work", "until_stopped", "waiting_note"]

Item = TypeVar("Item", bound=object)


class Work:
    """A piece of work.

    Attributes:
        stop: Set when it should end where it is.
        dropped: What it has done so far is not wanted, either.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.dropped = False


class Stops:
    """Which browser tab's work is to stop; belongs to the event loop's thread.

    So what the page calls it from is asynchronous: Gradio runs all else in threads.
    """

    def __init__(self) -> None:
        self._running: dict[str, Work] = {}

    @contextlib.contextmanager
    def running(self, tab: str) -> Iterator[Work]:
        """While a tab's work runs.

        What the same tab began before stops: it has one piece of work at a time.
        """
        self.stop(tab)
        work = self._running[tab] = Work()
        try:
            yield work
        finally:
            if self._running.get(tab) is work:
                del self._running[tab]

    def stop(self, tab: str, *, drop: bool = False) -> None:
        """Stop a tab's work, where there is any.

        Args:
            tab: The tab.
            drop: What it has done so far is not wanted, either.
        """
        work = self._running.get(tab)
        if work is not None:
            work.dropped = work.dropped or drop
            work.stop.set()


def waiting_note(seconds: float, *, begun: bool) -> str:
    """What to say while nothing comes.

    Args:
        seconds: For how long.
        begun: A session works on it: it is the trunk that is waited for.
    """
    if not begun:
        return f"waiting for {seconds:.0f} s for its turn, or for the trunk to take it"
    return (
        f"no answer from the trunk for {seconds:.0f} s: it is busy, or away. "
        "This goes on when it is back."
    )


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

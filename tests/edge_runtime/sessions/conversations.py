"""A pool's sessions as its tests ask them: they hold what they were last asked, and count."""

from __future__ import annotations

import asyncio
import threading

from edge_runtime.closing import Closing
from edge_runtime.sessions.pool import PoolLimits, SessionPool

__all__ = ["Conversation", "ask", "make_pool", "run", "until", "until_free"]


class Conversation(Closing):
    """A session that holds what it was last asked; jobs count up."""

    def __init__(self, opened: list[Conversation]) -> None:
        self.held: list[int] = []
        self.threads = {threading.get_ident()}
        self.closed = threading.Event()
        opened.append(self)

    def count(self, tokens, limit=3, gate=None):
        self.threads.add(threading.get_ident())
        self.held = list(tokens)
        for number in range(limit):
            if gate is not None:
                gate.wait(30)
            yield number

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.closed.set()


def make_pool(opened, **limits) -> SessionPool[Conversation]:
    settings = PoolLimits(**{"sessions": 2, "waiting": 1, "wait_s": 30, "idle_s": 300, **limits})
    return SessionPool(lambda: Conversation(opened), settings, held=lambda one: one.held)


async def ask(pool, tokens, **settings) -> tuple[Conversation, list[int]]:
    """What a session counts, and which one it was."""
    met = []

    def job(one, _wanted):
        met.append(one)
        yield from one.count(tokens, **settings)

    found = [item async for item in pool.run(job, tokens)]
    return met[0], found


def run(scenario) -> None:
    async def whole():
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(whole())


async def until(holds) -> None:
    while not holds():  # noqa: ASYNC110  # as a client sees it, from outside
        await asyncio.sleep(0.01)


async def until_free(pool) -> None:
    await until(lambda: not pool.busy)

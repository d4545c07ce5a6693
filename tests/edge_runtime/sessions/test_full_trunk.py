"""Requests share the sessions that a full trunk has places for, and it is asked again in time."""

from __future__ import annotations

import asyncio
import threading

import pytest

from edge_runtime.sessions.pool import PoolLimits, SessionPool
from lambda_split.errors import CapacityRefused
from tests.edge_runtime.sessions.conversations import Conversation, ask, run, until


def put_clock_on(seconds: float) -> None:
    """Let the running event loop's time go on by so much, so that nobody waits for that."""
    loop = asyncio.get_running_loop()
    earlier = loop.time
    loop.time = lambda: earlier() + seconds


class Trunk:
    """Opens sessions while it has places, one at a time."""

    again_s = 20  # longer than what is done before it is asked again

    def __init__(self, places: int) -> None:
        self.places = places
        self.asked = 0
        self.opened: list[Conversation] = []
        self.gate = threading.Event()
        self.gate.set()

    def open(self) -> Conversation:
        self.gate.wait(30)
        self.asked += 1
        if len(self.opened) >= self.places:
            raise CapacityRefused("sessions", self.again_s)
        return Conversation(self.opened)

    def pool(self, **limits) -> SessionPool[Conversation]:
        settings = PoolLimits(**{"sessions": 4, "waiting": 4, "wait_s": 30, **limits})
        return SessionPool(self.open, settings, held=lambda one: one.held)


def test_a_full_trunk_s_sessions_are_shared_and_it_is_asked_again_in_time() -> None:
    async def scenario():
        trunk = Trunk(places=1)
        pool = trunk.pool()
        gate = threading.Event()
        working = asyncio.create_task(ask(pool, [1], gate=gate))
        await until(lambda: trunk.opened)
        waiting = [asyncio.create_task(ask(pool, [number])) for number in (2, 3)]
        await until(lambda: pool.waiting == 2)
        assert (trunk.asked, pool.open, pool.busy, pool.waiting) == (3, 1, 1, 2)
        gate.set()
        for found, counted in await asyncio.gather(working, *waiting):
            assert (found, counted) == (trunk.opened[0], [0, 1, 2])
        assert trunk.asked == 3
        trunk.places = 2
        gate.clear()
        working = asyncio.create_task(ask(pool, [1], gate=gate))
        await asyncio.sleep(0)
        late = asyncio.create_task(ask(pool, [9]))
        await until(lambda: pool.waiting)
        put_clock_on(trunk.again_s)
        found, _ = await late  # when it is time to ask again
        assert found is trunk.opened[1]
        gate.set()
        await working
        await pool.close()

    run(scenario)


def test_where_there_is_no_session_each_is_told_that_the_trunk_is_full() -> None:
    async def scenario():
        trunk = Trunk(places=0)
        trunk.gate.clear()
        pool = trunk.pool(sessions=1)
        asking = [asyncio.create_task(ask(pool, [number])) for number in range(3)]
        await asyncio.sleep(0.05)
        assert (pool.busy, pool.waiting) == (1, 2)
        trunk.gate.set()
        for task in asking:
            with pytest.raises(CapacityRefused):
                await task
        assert (pool.open, pool.waiting) == (0, 0)
        await pool.close()

    run(scenario)


def test_a_session_that_opens_too_late_for_one_request_does_for_another() -> None:
    async def scenario():
        trunk = Trunk(places=1)
        trunk.gate.clear()
        pool = trunk.pool(sessions=1)
        impatient = asyncio.create_task(ask(pool, [1]))
        await asyncio.sleep(0.05)
        other = asyncio.create_task(ask(pool, [2]))
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        assert (pool.busy, pool.waiting) == (1, 1)  # it is still being opened
        trunk.gate.set()
        found, _ = await other
        assert [found] == trunk.opened
        await pool.close()

    run(scenario)


def test_a_session_that_opens_too_late_leaves_room_for_others_as_well() -> None:
    async def scenario():
        trunk = Trunk(places=1)
        pool = trunk.pool(sessions=3)
        gate = threading.Event()
        working = asyncio.create_task(ask(pool, [1], gate=gate))
        await until(lambda: trunk.opened)
        impatient = asyncio.create_task(ask(pool, [2]))
        await until(lambda: pool.waiting == 1)
        others = [asyncio.create_task(ask(pool, [number], gate=gate)) for number in (3, 4)]
        await until(lambda: pool.waiting == 3)
        trunk.places = 3
        trunk.gate.clear()
        put_clock_on(trunk.again_s)
        await until(lambda: pool.busy == 2)  # who waits longest asks the trunk again
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        trunk.gate.set()
        await until(lambda: len(trunk.opened) == 3)  # the trunk has room for both
        gate.set()
        await asyncio.gather(working, *others)
        await pool.close()

    run(scenario)

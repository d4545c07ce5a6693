"""Which session a request gets, how long it waits, and when sessions end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import threading

import pytest

from edge_runtime.sessions.pool import PoolLimits, SessionPool, shared_prefix
from lambda_split.errors import CapacityRefused, Overloaded, ServerUnreachable
from tests.edge_runtime.sessions.conversations import (
    Conversation,
    ask,
    make_pool,
    run,
    until,
    until_free,
)


def test_shared_prefix() -> None:
    assert shared_prefix([1, 2, 3], [1, 2, 4, 5]) == 2
    assert shared_prefix([], [1]) == shared_prefix([2], [1]) == 0
    assert shared_prefix([1, 2], [1, 2]) == 2


def test_a_next_turn_meets_the_session_that_holds_the_conversation() -> None:
    async def scenario():
        opened: list[Conversation] = []
        pool = make_pool(opened)
        first, found = await ask(pool, [1, 2, 3, 4])
        assert found == [0, 1, 2]
        await asyncio.sleep(0)
        second, _ = await ask(pool, [9, 8, 7, 6])
        await asyncio.sleep(0)
        assert first is not second
        for tokens, wanted in [
            ([1, 2, 3, 4, 5, 6], first),
            ([9, 8, 7, 6, 5], second),
            ([9, 8], second),
            ([1, 5, 5, 5, 5, 5], first),  # no more sessions: the one that shares most
            ([4, 4], second),  # nothing in common: the one that was not used for longest
        ]:
            found, _ = await ask(pool, tokens)
            assert found is wanted, tokens
            await asyncio.sleep(0)
        assert opened == [first, second]
        assert (pool.open, pool.busy, pool.waiting) == (2, 0, 0)
        await pool.close()
        for one in opened:
            assert await asyncio.to_thread(one.closed.wait, 30)
            assert len(one.threads) == 1  # all of it in its own thread

    run(scenario)


def test_waiting_is_bounded_in_number_and_time() -> None:
    async def scenario():
        opened: list[Conversation] = []
        pool = make_pool(opened, sessions=1, wait_s=0.2)
        gate = threading.Event()
        working = asyncio.create_task(ask(pool, [1], gate=gate))
        await asyncio.sleep(0.05)
        late = asyncio.create_task(ask(pool, [2]))
        await asyncio.sleep(0)
        assert (pool.busy, pool.waiting) == (1, 1)
        with pytest.raises(Overloaded, match="wait already"):
            await ask(pool, [3])
        with pytest.raises(Overloaded, match="became free"):
            await late
        assert pool.waiting == 0
        gate.set()
        await working
        await asyncio.sleep(0)
        _, found = await ask(pool, [4])
        assert found == [0, 1, 2]
        await pool.close()

    run(scenario)


def test_who_waits_gets_the_session_that_becomes_free_and_a_cancelled_one_passes_it_on() -> None:
    async def scenario():
        opened: list[Conversation] = []
        pool = make_pool(opened, sessions=1, waiting=5)
        gate = threading.Event()
        working = asyncio.create_task(ask(pool, [1], gate=gate))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(ask(pool, [number])) for number in range(2, 5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        gate.set()
        await working
        for task in waiting[1:]:
            found, _ = await task
            assert found is opened[0]
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        await asyncio.sleep(0)
        assert (pool.open, pool.busy, pool.waiting) == (1, 0, 0)
        await pool.close()

    run(scenario)


def test_a_job_that_nobody_wants_ends_and_only_then_is_the_session_free() -> None:
    async def scenario():
        at_gate, gate = threading.Event(), threading.Event()

        def job(_one, _wanted):
            yield 0
            at_gate.set()
            gate.wait(30)
            yield from itertools.count(1)

        opened: list[Conversation] = []
        pool = make_pool(opened, sessions=1)
        endless = pool.run(job)
        async with contextlib.aclosing(endless):
            assert await anext(endless) == 0
            assert await asyncio.to_thread(at_gate.wait, 30)
        await asyncio.sleep(0.05)
        assert pool.busy == 1  # still in the middle of an item
        gate.set()
        await until_free(pool)
        await pool.close()

    run(scenario)


def test_who_does_not_take_its_items_holds_no_session() -> None:
    async def scenario():
        opened: list[Conversation] = []
        pool = make_pool(opened, sessions=1)
        slow = pool.run(lambda one, _: one.count([1], limit=100))
        async with contextlib.aclosing(slow):
            assert await anext(slow) == 0
            await until_free(pool)
            assert (await ask(pool, [2]))[1] == [0, 1, 2]
            assert [item async for item in slow] == list(range(1, 100))
        await pool.close()

    run(scenario)


def test_idle_sessions_are_closed() -> None:
    async def scenario():
        opened: list[Conversation] = []
        pool = make_pool(opened, idle_s=0.05)
        await ask(pool, [1])
        assert await asyncio.to_thread(opened[0].closed.wait, 30)
        assert pool.open == 0
        await ask(pool, [1])
        assert len(opened) == 2
        await pool.close()

    run(scenario)


def test_a_session_that_cannot_be_opened_takes_no_place() -> None:
    async def scenario():
        def fail():
            raise ServerUnreachable("ws://nowhere", "no route")

        pool = SessionPool(fail, PoolLimits(sessions=1, waiting=0), held=lambda _: ())
        for _ in range(3):
            with pytest.raises(ServerUnreachable):
                await ask(pool, [1])
            await asyncio.sleep(0)
            assert pool.open == 0
        await pool.close()

    run(scenario)


@pytest.mark.parametrize(
    ("kind", "facts"),
    [(ServerUnreachable, ("ws://nowhere", "no route")), (CapacityRefused, ("sessions", 4))],
)
def test_a_session_that_nobody_waits_for_may_fail_to_open(caplog, kind, facts) -> None:
    async def scenario():
        gate = threading.Event()

        def fail():
            gate.wait(30)
            raise kind(*facts)

        pool = SessionPool(fail, PoolLimits(), held=lambda _: ())
        impatient = asyncio.create_task(ask(pool, [1]))
        await until(lambda: pool.busy)
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait([impatient])
        gate.set()
        await until_free(pool)
        assert pool.open == 0
        await pool.close()

    run(scenario)
    gc.collect()  # asyncio tells of errors that nobody took when their futures are forgotten
    assert caplog.text == ""


def test_a_job_that_takes_long_between_two_items_can_ask_whether_it_is_wanted() -> None:
    async def scenario():
        told: list[bool] = []
        left = threading.Event()

        def job(_one, wanted):
            told.append(wanted())
            yield 1
            left.wait(30)
            told.append(wanted())

        opened: list[Conversation] = []
        pool = make_pool(opened, sessions=1)
        async with contextlib.aclosing(pool.run(job)) as items:
            assert await anext(items) == 1
        left.set()
        await until_free(pool)
        assert told == [True, False]
        await pool.close()

    run(scenario)

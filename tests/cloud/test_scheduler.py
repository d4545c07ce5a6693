"""Order and fairness of the scheduler, with a real engine in its thread."""

import asyncio
import threading

import pytest

from lambda_split.errors import CapacityRefused, NonFinite, PositionGap, SessionEvicted
from lambda_split.partition import load_trunk
from lambda_split.wire import codecs
from lambda_split.wire.frames import Codec, Frame, FrameKind
from tests.cloud.scheduling import as_array, forward, scheduled
from tests.cloud.serving import LAYERS, POSITIONS, WIDTH, Reference, hidden_states


def test_a_step_takes_the_oldest_forward_of_each_session(model):
    async def scenario(scheduler, engine):
        a, b, c = [await scheduler.open(LAYERS, POSITIONS) for _ in range(3)]
        first = scheduler.submit(a, forward(0, hidden_states(2)))
        await asyncio.to_thread(engine.entered.wait)
        waiting = [
            scheduler.submit(b, forward(0, hidden_states(1))),
            scheduler.submit(b, forward(1, hidden_states(1))),
            scheduler.submit(a, forward(2, hidden_states(1))),
            scheduler.submit(b, forward(2, hidden_states(1))),
            scheduler.submit(c, forward(0, hidden_states(1))),
            scheduler.submit(a, forward(3, hidden_states(1))),
        ]
        engine.gate.set()
        await asyncio.gather(first, *waiting)
        return engine.steps, (a, b, c)

    steps, (a, b, c) = scheduled(model, scenario, hold=True)
    assert steps == [
        [(a, 0)],
        [(b, 0), (a, 2), (c, 0)],
        [(b, 1), (a, 3)],
        [(b, 2)],
    ]


def test_the_engine_is_touched_by_one_thread_only(model):
    async def scenario(scheduler, engine):
        session = await scheduler.open(LAYERS, POSITIONS)
        await scheduler.submit(session, forward(0, hidden_states(2)))
        scheduler.close(session)
        await scheduler.open(LAYERS, POSITIONS)
        return engine.threads

    (thread,) = scheduled(model, scenario)
    assert thread is not threading.main_thread()


def test_exceptions_reach_their_own_waiter_only(model):
    async def scenario(scheduler, engine):
        good, gap, nan = [await scheduler.open(LAYERS, POSITIONS) for _ in range(3)]
        blocker = scheduler.submit(good, forward(0, hidden_states(3, 1)))
        await asyncio.to_thread(engine.entered.wait)
        poisoned = codecs.Encoded(b"\xff" * 4 * WIDTH)
        answers = asyncio.gather(
            blocker,
            scheduler.submit(gap, forward(5, hidden_states(1))),
            scheduler.submit(nan, Frame(FrameKind.FORWARD, Codec.FP32, 0, 1, 0, poisoned.payload)),
            scheduler.submit(good, forward(3, hidden_states(2, 2))),
            return_exceptions=True,
        )
        engine.gate.set()
        return await answers

    first, gap, nan, second = scheduled(model, scenario, hold=True)
    assert isinstance(gap, PositionGap)
    assert isinstance(nan, NonFinite)
    reference = Reference(model.trunk)
    assert (as_array(first, 3) == reference.forward(0, hidden_states(3, 1))).all()
    assert (as_array(second, 2) == reference.forward(3, hidden_states(2, 2))).all()


def test_opening_beyond_capacity_is_refused_in_the_caller(model):
    async def scenario(scheduler, engine):
        session = await scheduler.open(LAYERS, POSITIONS)
        with pytest.raises(CapacityRefused):
            await scheduler.open(LAYERS, POSITIONS)
        scheduler.close(session)
        return await scheduler.open(LAYERS, POSITIONS)

    assert scheduled(model, scenario, max_sessions=1).max_positions == POSITIONS


def test_closing_a_session_drops_what_it_has_waiting(model):
    async def scenario(scheduler, engine):
        session = await scheduler.open(LAYERS, POSITIONS)
        running = scheduler.submit(session, forward(0, hidden_states(2)))
        await asyncio.to_thread(engine.entered.wait)
        waiting = scheduler.submit(session, forward(2, hidden_states(1)))
        scheduler.close(session)
        engine.gate.set()
        await running
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await scheduler.open(LAYERS, POSITIONS)  # after the close, which waits for the step
        return engine.steps, engine.engine.open_sessions

    steps, still_open = scheduled(model, scenario, hold=True)
    assert len(steps) == 1
    assert still_open == 1


def test_an_open_that_nobody_waits_for_any_more_is_closed_again(model):
    async def scenario(scheduler, engine):
        session = await scheduler.open(LAYERS, POSITIONS)
        running = scheduler.submit(session, forward(0, hidden_states(2)))
        await asyncio.to_thread(engine.entered.wait)
        opening = asyncio.ensure_future(scheduler.open(LAYERS, POSITIONS))
        await asyncio.sleep(0.01)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        engine.gate.set()
        await running
        async with asyncio.timeout(5):
            while engine.engine.open_sessions != 1:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)

    scheduled(model, scenario, hold=True)


def test_sessions_open_and_close_between_the_works_of_a_step(model):
    trunk = load_trunk(model.checkpoint, LAYERS)
    in_second_work, go_on = threading.Event(), threading.Event()
    works = []

    def hold(module, args):
        works.append(args)
        if len(works) == 2:
            in_second_work.set()
            assert go_on.wait(10)

    trunk.stack.layers[0].register_forward_pre_hook(hold)

    async def scenario(scheduler, engine):
        first, a, b, c = [await scheduler.open(LAYERS, POSITIONS) for _ in range(4)]
        forwards = [scheduler.submit(first, forward(0, hidden_states(1)))]
        await asyncio.to_thread(engine.entered.wait)
        forwards += [scheduler.submit(each, forward(0, hidden_states(1))) for each in (a, b, c)]
        engine.gate.set()
        await asyncio.to_thread(in_second_work.wait)
        engine.events.clear()
        scheduler.close(b)
        opening = asyncio.ensure_future(scheduler.open(LAYERS, POSITIONS))
        await asyncio.sleep(0)
        go_on.set()
        outcomes = await asyncio.gather(*forwards, opening, return_exceptions=True)
        return engine.steps, engine.events, outcomes

    steps, events, outcomes = scheduled(model, scenario, hold=True, trunk=trunk, max_sessions=4)
    assert [len(step) for step in steps] == [1, 3]
    assert events == ["outcome", "close", "open", "outcome", "outcome"]
    assert len(works) == 3  # the closed session's was not run
    assert isinstance(outcomes[2], SessionEvicted)

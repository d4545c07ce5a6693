"""Order, fairness and faults of the scheduler, with a real engine in its thread."""

import asyncio
import threading
import time

import pytest
import torch

from cloud.scheduler import Scheduler
from lambda_split.errors import CapacityRefused, NonFinite, PositionGap, ServerDraining
from lambda_split.wire import codecs
from lambda_split.wire.frames import Codec, Frame, FrameKind
from tests.cloud.serving import LAYERS, POSITIONS, WIDTH, Reference, hidden_states, run


def forward(start, hidden, sequence=0, reply=None):
    encoded = codecs.encode(hidden, Codec.FP32)
    return Frame(
        kind=FrameKind.FORWARD,
        codec=Codec.FP32,
        start=start,
        tokens=len(hidden),
        sequence=sequence,
        payload=encoded.payload,
        reply=len(hidden) if reply is None else reply,
    )


class Observed:
    """An engine whose steps are recorded, and held until the gate is open."""

    def __init__(self, engine):
        self.engine = engine
        self.width, self.dtype, self.device = engine.width, engine.dtype, engine.device
        self.steps = []
        self.threads = set()
        self.gate = threading.Event()
        self.entered = threading.Event()

    def open(self, layers, max_positions):
        self.threads.add(threading.current_thread())
        return self.engine.open(layers, max_positions)

    def step(self, batch):
        self.threads.add(threading.current_thread())
        self.steps.append([(work.session, work.start) for work in batch])
        self.entered.set()
        assert self.gate.wait(10)
        return self.engine.step(batch)

    def interrupt(self):
        self.engine.interrupt()

    def revert(self, session):
        self.engine.revert(session)

    def close(self, session):
        self.threads.add(threading.current_thread())
        self.engine.close(session)


def scheduled(model, scenario, *, hold=False, **settings):
    async def body():
        engine = Observed(model.engine(**settings))
        if not hold:
            engine.gate.set()
        scheduler = Scheduler(engine)
        scheduler.start()
        try:
            return await scenario(scheduler, engine)
        finally:
            engine.gate.set()
            await scheduler.stop(10)

    return run(body())


def as_array(reply, tokens):
    return codecs.decode(reply.encoded.payload, Codec.FP32, tokens, WIDTH)


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


def test_stopping_finishes_the_step_and_sends_the_rest_away(model):
    async def scenario(scheduler, engine):
        session = await scheduler.open(LAYERS, POSITIONS)
        running = scheduler.submit(session, forward(0, hidden_states(2)))
        await asyncio.to_thread(engine.entered.wait)
        waiting = scheduler.submit(session, forward(2, hidden_states(1)))
        stopping = asyncio.ensure_future(scheduler.stop(10))
        with pytest.raises(ServerDraining):
            await waiting
        engine.gate.set()
        await stopping
        with pytest.raises(ServerDraining):
            await scheduler.submit(session, forward(2, hidden_states(1)))
        with pytest.raises(ServerDraining):
            await scheduler.open(LAYERS, POSITIONS)
        return await running

    reply = scheduled(model, scenario, hold=True)
    assert torch.isfinite(torch.from_numpy(as_array(reply, 2))).all()


def test_stopping_interrupts_a_step_that_takes_too_long(model, slow):
    async def scenario(scheduler, engine):
        session = await scheduler.open(LAYERS, POSITIONS)
        running = scheduler.submit(session, forward(0, hidden_states(2)))
        await asyncio.to_thread(engine.entered.wait)
        began = time.monotonic()
        await scheduler.stop(0.05)
        with pytest.raises(ServerDraining):
            await running
        return time.monotonic() - began

    # Four layers would take 0.8 s; it ends with the one that runs.
    assert scheduled(model, scenario, trunk=slow) < 0.7

"""How a scheduler stops, and what it does when its engine breaks."""

import asyncio
import threading

import numpy as np
import pytest

from lambda_split.errors import InternalError, ServerDraining
from lambda_split.wire.frames import Codec
from tests.cloud.conftest import served_trunk
from tests.cloud.scheduling import Panic, as_array, forward, room, scheduled
from tests.cloud.serving import hidden_states


def test_stopping_finishes_the_step_and_sends_the_rest_away(model):
    async def scenario(scheduler, engine):
        session = await scheduler.open(room(engine))
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
            await scheduler.open(room(engine))
        return await running

    reply = scheduled(model, scenario, hold=True)
    assert np.isfinite(as_array(reply, 2)).all()


def test_stopping_interrupts_a_step_that_takes_too_long(model):
    trunk = served_trunk(model.checkpoint)
    begun = []
    in_first_layer, go_on = threading.Event(), threading.Event()

    def record(module, args):
        begun.append(module)
        in_first_layer.set()
        assert go_on.wait(30)

    for layer in trunk.stack.layers:
        layer.register_forward_pre_hook(record)

    async def scenario(scheduler, engine):
        session = await scheduler.open(room(engine))
        running = scheduler.submit(session, forward(0, hidden_states(2)))
        await asyncio.to_thread(in_first_layer.wait)
        stopping = asyncio.ensure_future(scheduler.stop(0))
        async with asyncio.timeout(30):
            while "interrupt" not in engine.events:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)
        go_on.set()
        await stopping
        with pytest.raises(ServerDraining):
            await running

    scheduled(model, scenario, trunk=trunk)
    assert len(begun) == 1  # of four: the one that ran when it was told to stop


def test_a_canceled_stop_still_ends_the_thread(model):
    async def scenario(scheduler, engine):
        session = await scheduler.open(room(engine))
        running = scheduler.submit(session, forward(0, hidden_states(2)))
        await asyncio.to_thread(engine.entered.wait)
        stopping = asyncio.ensure_future(scheduler.stop(10))
        await asyncio.sleep(0.01)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert engine.events[-1] == "interrupt"
        engine.gate.set()
        with pytest.raises(ServerDraining):
            await running

    scheduled(model, scenario, hold=True)


def test_a_fault_in_taking_a_work_back_is_that_work_s_error(model):
    trunk = served_trunk(model.checkpoint)

    def enlarge(module, args, output):
        return output + 3.4e38

    trunk.stack.layers[-1].register_forward_hook(enlarge)

    async def scenario(scheduler, engine):
        session = await scheduler.open(room(engine))
        engine.revert_fault = RuntimeError("no way back")
        too_large = forward(0, hidden_states(2), codec=Codec.BF16)
        with pytest.raises(RuntimeError, match="no way back"):
            await scheduler.submit(session, too_large)
        return await scheduler.submit(session, forward(0, hidden_states(2)))

    assert np.isfinite(as_array(scheduled(model, scenario, trunk=trunk), 2)).all()


def test_whatever_waits_is_told_when_the_engine_s_thread_dies(model, caplog):
    async def scenario(scheduler, engine):
        session, other = [await scheduler.open(room(engine)) for _ in range(2)]
        forwards = [scheduler.submit(session, forward(0, hidden_states(2)))]
        await asyncio.to_thread(engine.entered.wait)
        forwards.append(scheduler.submit(session, forward(2, hidden_states(1))))
        forwards.append(scheduler.submit(other, forward(0, hidden_states(1))))
        opening = asyncio.ensure_future(scheduler.open(room(engine)))
        await asyncio.sleep(0.01)
        engine.step_fault = Panic("never seen before")
        engine.gate.set()
        errors = await asyncio.gather(*forwards, opening, return_exceptions=True)
        errors.append(await asyncio.wrap_future(scheduler.fault))
        with pytest.raises(InternalError):
            await scheduler.submit(other, forward(0, hidden_states(1)))
        with pytest.raises(InternalError):
            await scheduler.open(room(engine))
        return errors

    errors = scheduled(model, scenario, hold=True)
    assert [type(error) for error in errors] == [InternalError] * 5
    (incident,) = {error.incident for error in errors}
    assert incident in caplog.text
    assert "never seen before" in caplog.text


def test_stopping_while_a_step_is_composed_leaves_each_forward_to_one_side(model, caplog):
    composing, go_on = threading.Event(), threading.Event()

    async def scenario(scheduler, engine):
        sessions = [await scheduler.open(room(engine)) for _ in range(3)]
        running = scheduler.submit(sessions[0], forward(0, hidden_states(1)))
        await asyncio.to_thread(engine.entered.wait)
        reserve = engine.engine.reserve

        def held(session, end):
            composing.set()
            assert go_on.wait(30)
            return reserve(session, end)

        engine.reserve = held
        waiting = [scheduler.submit(each, forward(0, hidden_states(1))) for each in sessions[1:]]
        engine.gate.set()
        await asyncio.to_thread(composing.wait)
        stopping = asyncio.ensure_future(scheduler.stop(10))
        with pytest.raises(ServerDraining):
            await waiting[1]  # it was in line, and not taken yet
        go_on.set()
        await stopping
        return await running, await waiting[0]

    for reply in scheduled(model, scenario, hold=True):
        assert np.isfinite(as_array(reply, 1)).all()
    assert not caplog.records

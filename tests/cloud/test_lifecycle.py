"""Sessions that end in every way, and a server that stops."""

import asyncio
import contextlib
import dataclasses
import logging
import threading

import numpy as np
import pytest
from websockets.asyncio.client import connect

from cloud.status import ServerStatus
from cloud.tokens import TokenStore
from lambda_split.errors import InternalError, ServerDraining
from tests.cloud.scheduling import Observed, Panic
from tests.cloud.serving import (
    LIMITS,
    Device,
    Reference,
    hidden_states,
    marked,
    run,
    same,
    serving,
    token_file,
)


async def until(condition):
    async with asyncio.timeout(40):
        while not condition():  # noqa: ASYNC110 - the engine's state has no event to wait for
            await asyncio.sleep(0.01)


async def flood(device):
    """Send without reading any reply, until the server does not read either."""
    device.socket.transport.pause_reading()
    hidden = hidden_states(80)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:
            await asyncio.wait_for(device.send(0, hidden), 1)
            sent += 1
    return sent


def test_a_session_s_cache_is_freed_however_it_ends(model):
    engine = model.engine()

    async def scenario():
        async with serving(model, engine=engine) as url:
            async with Device.connected(url, model.hello()) as device:
                await device.forward(0, hidden_states(2))
                assert engine.open_sessions == 1
                await device.socket.send(device.session.close("done"))
                await device.socket.wait_closed()
                assert device.socket.close_code == 1000
            await until(lambda: engine.open_sessions == 0)
            async with Device.connected(url, model.hello()) as device:
                await device.socket.send(b"not a frame")
                await device.fatal()
            await until(lambda: engine.open_sessions == 0)
            async with Device.connected(url, model.hello()) as device:
                device.socket.transport.abort()
            await until(lambda: engine.open_sessions == 0)

    run(scenario())


def test_a_device_that_vanishes_in_mid_forward_disturbs_nobody(model):
    engine = model.engine()

    async def scenario():
        async with serving(model, engine=engine) as url:
            async with Device.connected(url, model.hello()) as other:
                await other.forward(0, hidden_states(3, 0))
                async with Device.connected(url, model.hello()) as device:
                    for start in range(0, 80, 40):
                        await device.send(start, hidden_states(40))
                    device.socket.transport.abort()
                found = await other.forward(3, hidden_states(2, 1))
                await until(lambda: engine.open_sessions == 1)
            return found

    reference = Reference(model.trunk)
    reference.forward(0, hidden_states(3, 0))
    assert same(run(scenario()), reference.forward(3, hidden_states(2, 1)))


def test_a_storm_of_reconnects_leaves_nothing_behind(model):
    engine = model.engine(max_sessions=64)

    async def one(url, index):
        hidden = hidden_states(4, index)
        async with Device.connected(url, model.hello()) as device:
            found = await device.forward(0, hidden)
            if index % 3 == 0:
                device.socket.transport.abort()
            elif index % 3 == 1:
                await device.socket.send(device.session.close())
        return same(found, Reference(model.trunk).forward(0, hidden))

    async def scenario():
        async with serving(model, engine=engine) as url:
            for wave in range(4):
                results = await asyncio.gather(*(one(url, 20 * wave + i) for i in range(20)))
                assert all(results)
            await until(lambda: engine.open_sessions == 0)

    run(scenario())


def test_a_device_that_does_not_read_stops_being_read(model):
    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as device:
            sent = await flood(device)
            async with Device.connected(url, model.hello()) as other:
                found = await other.forward(0, hidden_states(2))
            device.socket.transport.abort()
            return sent, found

    sent, found = run(scenario())
    assert sent > 4
    np.testing.assert_array_equal(found, Reference(model.trunk).forward(0, hidden_states(2)))


def test_a_fault_in_the_model_ends_its_session_with_an_incident_number(
    model, fragile, caplog, tmp_path
):
    caplog.set_level(logging.DEBUG)
    tokens = TokenStore(token_file(tmp_path, someone="s3cret"))

    async def scenario():
        async with (
            serving(model, engine=model.engine(trunk=fragile), tokens=tokens) as url,
            Device.connected(url, model.hello(), token="s3cret") as other,
        ):
            before = await other.forward(0, hidden_states(3, 0))
            async with Device.connected(url, model.hello(), token="s3cret") as device:
                await device.send(0, marked(2, 3.2109876e38))
                ended = await device.fatal()
            return ended, [before, await other.forward(3, hidden_states(2, 1))]

    (error, code), found = run(scenario())
    assert type(error) is InternalError
    assert code == 1011
    reference = Reference(model.trunk)
    np.testing.assert_array_equal(found[0], reference.forward(0, hidden_states(3, 0)))
    np.testing.assert_array_equal(found[1], reference.forward(3, hidden_states(2, 1)))
    # The log tells the same number and the cause, and holds neither hidden states nor the token.
    assert error.incident in caplog.text
    assert "a kernel failed" in caplog.text
    assert "a kernel failed" not in str(error)
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("cloud")]
    assert len(logged) > 4
    assert not [line for line in logged if "3.21" in line or "s3cret" in line]


def test_a_stopping_server_answers_what_is_under_way_then_says_so(model, slow):
    sent = [(0, 40), (40, 20), (60, 1)]

    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            async with serving(model, engine=model.engine(trunk=slow)) as url:
                device = await stack.enter_async_context(Device.connected(url, model.hello()))
                idle = await stack.enter_async_context(Device.connected(url, model.hello()))
                silent = await stack.enter_async_context(connect(url, compression=None))
                for index, (start, tokens) in enumerate(sent):
                    await device.send(start, hidden_states(tokens, index))
                found = [await device.receive()]
            # The server has stopped; what it had sent by then is still to be read.
            found += [await device.receive() for _ in sent[1:]]
            ends = [await device.fatal(), await idle.fatal()]
            ends.append(await Device(silent, model.hello()).fatal())
            with pytest.raises(OSError, match=r"[Cc]onnect"):
                await connect(url)
        return found, ends

    found, ends = run(scenario())
    reference = Reference(model.trunk)
    for index, (start, tokens) in enumerate(sent):
        wanted = reference.forward(start, hidden_states(tokens, index))
        assert same(found[index], wanted)
    assert [(type(error), code) for error, code in ends] == [(ServerDraining, 1001)] * 3


def test_a_stopping_server_does_not_wait_for_a_device_that_hangs(model):
    hasty = dataclasses.replace(LIMITS, drain_s=2.0, goodbye_s=1.0)

    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            async with serving(model, limits=hasty) as url:
                device = await stack.enter_async_context(Device.connected(url, model.hello()))
                await flood(device)
                began = asyncio.get_running_loop().time()
            took = asyncio.get_running_loop().time() - began
            device.socket.transport.abort()
            return took

    # drain_s for the replies that it does not read, goodbye_s for the last word
    assert run(scenario()) < 20


def test_a_fault_while_the_server_stops_is_told_and_logged(model, slow, caplog):
    def crash(module, args, output):
        raise RuntimeError("a kernel failed")

    slow.stack.layers[-1].register_forward_hook(crash)

    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            async with serving(model, engine=model.engine(trunk=slow)) as url:
                device = await stack.enter_async_context(Device.connected(url, model.hello()))
                await device.send(0, hidden_states(2))
                await asyncio.to_thread(slow.begun.wait, 30)
            return await device.fatal()

    error, code = run(scenario())
    assert (type(error), code) == (InternalError, 1011)
    assert error.incident in caplog.text
    assert "a kernel failed" in caplog.text


def test_a_server_whose_engine_breaks_says_so_to_its_owner_and_its_devices(model):
    engine = Observed(model.engine())
    engine.gate.set()
    engine.step_fault = Panic("never seen before")

    async def scenario():
        fault = asyncio.get_running_loop().create_future()
        async with (
            serving(model, engine=engine, on_fault=fault.set_result) as url,
            Device.connected(url, model.hello()) as device,
        ):
            await device.send(0, hidden_states(2))
            return await device.fatal(), await fault

    (error, code), fault = run(scenario())
    assert (type(error), code) == (InternalError, 1011)
    assert error.incident == fault.incident


def test_a_stop_that_is_canceled_leaves_no_thread_behind(model):
    engine = Observed(model.engine())  # in a step until it is interrupted
    interrupt = engine.interrupt

    def interrupt_and_go_on():
        interrupt()
        engine.gate.set()

    engine.interrupt = interrupt_and_go_on

    async def scenario():
        started = asyncio.get_running_loop().create_future()
        leave, status = asyncio.Event(), ServerStatus()

        async def serve_and_stop():
            async with serving(model, engine=engine, status=status) as url:
                started.set_result(url)
                await leave.wait()

        server = asyncio.ensure_future(serve_and_stop())
        async with Device.connected(await started, model.hello()) as device:
            await device.send(0, hidden_states(1))
            await asyncio.to_thread(engine.entered.wait, 30)
            leave.set()
            await status.leaving.wait()
            await asyncio.sleep(0.1)
            server.cancel()  # as a second Ctrl-C does, in the middle of draining
            await asyncio.wait({server})
        return server.cancelled()

    assert run(scenario())
    assert "engine" not in {thread.name for thread in threading.enumerate()}

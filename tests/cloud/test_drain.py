"""A server that is told to stop: who may go on, who is sent elsewhere, and for how long."""

import asyncio
import contextlib
import dataclasses
import pathlib
import signal
import threading
import time

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cloud.reloading import reload_all
from cloud.status import ServerStatus
from cloud.tokens import TokenStore
from lambda_split.errors import ServerDraining, TokenRevoked, UsageError
from tests.cloud.serving import (
    LIMITS,
    Device,
    Reference,
    hidden_states,
    run,
    same,
    serving,
    token_file,
)
from tests.cloud.test_command import process, until_said


@contextlib.asynccontextmanager
async def told_to_stop(model, *, linger_s, tokens=None, token=None):
    """(url, the stopping server, its status, a device that was connected before)."""
    status = ServerStatus()
    limits = dataclasses.replace(LIMITS, linger_s=linger_s)
    async with contextlib.AsyncExitStack() as devices, contextlib.AsyncExitStack() as server:
        context = serving(model, limits=limits, status=status, tokens=tokens)
        url = await server.enter_async_context(context)
        session = Device.connected(url, model.hello(), token=token)
        device = await devices.enter_async_context(session)
        ending = asyncio.ensure_future(server.aclose())
        await status.leaving.wait()
        yield url, ending, device
        await ending


async def refused(url):
    """HTTP status and text that a newcomer gets instead of the upgrade."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(url)
    return caught.value.response.status_code, caught.value.response.body


def test_an_open_session_goes_on_and_a_newcomer_is_sent_elsewhere(model):
    async def scenario():
        async with told_to_stop(model, linger_s=20.0) as (url, ending, device):
            found = [await device.forward(0, hidden_states(4, 0))]
            newcomer = await refused(url)
            found.append(await device.forward(4, hidden_states(1, 1)))
            assert not ending.done()
            began = time.monotonic()
            await device.socket.send(device.session.close())
            await ending
            return found, newcomer, time.monotonic() - began

    found, newcomer, took = run(scenario())
    reference = Reference(model.trunk)
    assert same(found[0], reference.forward(0, hidden_states(4, 0)))
    assert same(found[1], reference.forward(4, hidden_states(1, 1)))
    assert newcomer == (503, b"server-draining\n")
    assert took < 10  # the last session's end is not waited past


def test_one_that_came_before_and_says_hello_after_is_told_in_a_message(model):
    async def scenario():
        status = ServerStatus()
        limits = dataclasses.replace(LIMITS, linger_s=20.0)
        async with contextlib.AsyncExitStack() as server:
            url = await server.enter_async_context(serving(model, limits=limits, status=status))
            async with connect(url, compression=None) as silent:
                ending = asyncio.ensure_future(server.aclose())
                ended = await Device(silent, model.hello()).fatal()
            await ending
            return ended

    error, code = run(scenario())
    assert (type(error), code) == (ServerDraining, 1001)


def test_a_session_that_does_not_end_is_told_when_the_time_is_over(model):
    async def scenario():
        began = time.monotonic()
        async with told_to_stop(model, linger_s=0.5) as (_, _, device):
            ended = await device.fatal()
            return ended, time.monotonic() - began

    (error, code), took = run(scenario())
    assert (type(error), code) == (ServerDraining, 1001)
    assert took >= 0.4


def test_what_is_under_way_when_the_time_is_over_is_answered(model, slow):
    async def scenario():
        status = ServerStatus()
        limits = dataclasses.replace(LIMITS, linger_s=0.3, drain_s=20.0)
        async with contextlib.AsyncExitStack() as devices:
            server = contextlib.AsyncExitStack()
            context = serving(model, engine=model.engine(trunk=slow), limits=limits, status=status)
            url = await server.enter_async_context(context)
            device = await devices.enter_async_context(Device.connected(url, model.hello()))
            await device.send(0, hidden_states(3))  # takes 0.8 s
            await asyncio.to_thread(slow.begun.wait, 30)
            ending = asyncio.ensure_future(server.aclose())
            found = await device.receive()
            ended = await device.fatal()
            await ending
            return found, ended

    found, (error, code) = run(scenario())
    np.testing.assert_array_equal(found, Reference(model.trunk).forward(0, hidden_states(3)))
    assert (type(error), code) == (ServerDraining, 1001)


def test_a_drain_that_is_canceled_leaves_no_thread_behind(model):
    async def scenario():
        status = ServerStatus()
        limits = dataclasses.replace(LIMITS, linger_s=600.0)
        server = contextlib.AsyncExitStack()
        url = await server.enter_async_context(serving(model, limits=limits, status=status))
        async with Device.connected(url, model.hello()):
            ending = asyncio.ensure_future(server.aclose())
            await status.leaving.wait()
            await asyncio.sleep(0.1)
            ending.cancel()
            await asyncio.wait({ending})
            return ending.cancelled()

    assert run(scenario())
    assert "engine" not in {thread.name for thread in threading.enumerate()}


def test_a_server_without_sessions_ends_at_once(model):
    async def scenario():
        async with contextlib.AsyncExitStack() as server:
            limits = dataclasses.replace(LIMITS, linger_s=30.0)
            await server.enter_async_context(serving(model, limits=limits))
            began = time.monotonic()
        return time.monotonic() - began

    assert run(scenario()) < 10


def test_the_process_drains_for_as_long_as_its_setting_says(model):
    async def scenario(server, url):
        async with Device.connected(url, model.hello()) as device:
            await device.forward(0, hidden_states(2))
            server.send_signal(signal.SIGTERM)
            await until_said(server, "stopping on SIGTERM")
            await device.forward(2, hidden_states(1))  # it may go on
            newcomer = await refused(url)
            await device.socket.send(device.session.close())
            return newcomer, await asyncio.to_thread(server.wait, 60)

    arguments = (model.folder, "--port", 0, "--threads", 1, "--drain-seconds", 50)
    with process(*arguments) as server:
        url = server.stdout.readline().split()[-1]
        newcomer, code = run(scenario(server, url))
    assert newcomer == (503, b"server-draining\n")
    assert code == 0


def test_sighup_neither_ends_nor_disturbs_a_server(model):
    async def scenario(server, url):
        async with Device.connected(url, model.hello()) as device:
            server.send_signal(signal.SIGHUP)
            found = await device.forward(0, hidden_states(2))
            server.send_signal(signal.SIGTERM)
            await device.socket.send(device.session.close())
        return found, await asyncio.to_thread(server.wait, 60)

    with process(model.folder, "--port", 0, "--threads", 1) as server:
        url = server.stdout.readline().split()[-1]
        found, code = run(scenario(server, url))
    assert same(found, Reference(model.trunk).forward(0, hidden_states(2)))
    assert code == 0


def test_sighup_counts_while_a_server_loads_too(model, tmp_path):
    tokens = token_file(tmp_path, early="s3cret")

    async def scenario(server):
        await until_said(server, "1 token in")
        token_file(tmp_path, early="s3cret", late="an0ther")
        server.send_signal(signal.SIGHUP)
        await until_said(server, "2 tokens in")
        url = (await asyncio.to_thread(server.stdout.readline)).split()[-1]
        async with Device.connected(url, model.hello(), token="an0ther") as device:
            return await device.forward(0, hidden_states(2))

    with process(model.folder, "--port", 0, "--threads", 1, "--token-file", tokens) as server:
        assert run(scenario(server)).shape == (2, 64)


def test_a_token_that_is_taken_back_while_its_session_may_go_on_ends_it(model, tmp_path):
    tokens = TokenStore(token_file(tmp_path, someone="s3cret"))

    async def scenario():
        settings = {"linger_s": 600.0, "tokens": tokens, "token": "s3cret"}
        async with told_to_stop(model, **settings) as (_, _, device):
            await device.forward(0, hidden_states(2))
            token_file(tmp_path)
            tokens.reload()
            return await device.fatal()

    error, code = run(scenario())
    assert (type(error), code) == (TokenRevoked, 1008)


class Part:
    def __init__(self, file):
        self.file = pathlib.Path(file)
        self.text = self.file.read_text()

    def reload(self):
        if not self.file.exists():
            raise UsageError(f"{self.file} is gone")
        self.text = self.file.read_text()


def test_reloading_goes_on_past_a_part_that_cannot_be_read(tmp_path, caplog):
    for name in ("tokens", "certificate"):
        (tmp_path / name).write_text("old")
    parts = [Part(tmp_path / "tokens"), Part(tmp_path / "certificate")]
    (tmp_path / "tokens").unlink()
    (tmp_path / "certificate").write_text("new")
    assert not reload_all(*parts, None)
    assert [part.text for part in parts] == ["old", "new"]
    assert "tokens is gone" in caplog.text


@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGINT),
        (signal.SIGINT, signal.SIGINT),
    ],
)
def test_a_second_signal_does_not_wait_for_the_drain(model, signals):
    async def scenario(server, url):
        async with Device.connected(url, model.hello()):
            server.send_signal(signals[0])
            await until_said(server, f"stopping on {signals[0].name}")
            server.send_signal(signals[1])
            return await asyncio.to_thread(server.wait, 60)

    with process(model.folder, "--port", 0, "--threads", 1, "--drain-seconds", 600) as server:
        url = server.stdout.readline().split()[-1]
        assert run(scenario(server, url)) == 128 + signals[1]

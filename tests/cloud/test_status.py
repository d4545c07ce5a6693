"""The health pages, on their own and over a real socket."""

import asyncio
import contextlib
import dataclasses
import http
import urllib.error
import urllib.request

import pytest

from cloud.status import ServerStatus, status_page
from cloud.tokens import TokenStore
from tests.cloud.scheduling import Observed, Panic
from tests.cloud.serving import LIMITS, Device, hidden_states, run, serving, token_file

OK, UNAVAILABLE = http.HTTPStatus.OK, http.HTTPStatus.SERVICE_UNAVAILABLE


def codes(status):
    return [status_page(path, status)[0] for path in ("/healthz", "/readyz")]


def test_a_server_that_loads_its_model_is_alive_and_not_ready():
    assert codes(ServerStatus()) == [OK, UNAVAILABLE]


def test_a_server_that_serves_is_both():
    status = ServerStatus()
    status.started(lambda: True)
    assert codes(status) == [OK, OK]


def test_a_server_that_leaves_is_alive_and_not_ready():
    status = ServerStatus()
    status.started(lambda: True)
    status.leaving.set()
    assert codes(status) == [OK, UNAVAILABLE]
    assert status_page("/readyz", status)[1] == "draining\n"


def test_an_obstacle_makes_it_unready_and_no_more():
    status = ServerStatus()
    status.started(lambda: True)
    status.obstacle = "no replica serves"
    assert codes(status) == [OK, UNAVAILABLE]
    assert status_page("/readyz", status)[1] == "no replica serves\n"
    status.obstacle = ""
    assert codes(status) == [OK, OK]


def test_a_server_whose_engine_died_is_neither():
    status = ServerStatus()
    status.started(lambda: False)
    assert codes(status) == [UNAVAILABLE, UNAVAILABLE]


@pytest.mark.parametrize(
    "path", ["/", "", "/healthz/", "/health", "//healthz", "/READYZ", "/metrics"]
)
def test_there_are_no_other_pages(path):
    assert status_page(path, ServerStatus()) is None


def test_a_query_changes_nothing():
    assert status_page("/healthz?x=/readyz", ServerStatus())[0] == OK


def get(url, path):
    address = url.removeprefix("ws://")
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


async def both(url):
    return [await asyncio.to_thread(get, url, path) for path in ("/healthz", "/readyz")]


def test_they_need_no_token_and_no_free_connection(model, tmp_path):
    limits = dataclasses.replace(LIMITS, max_connections=1)
    path = token_file(tmp_path, it="s3cret")

    async def scenario():
        async with (
            serving(model, tokens=TokenStore(path), limits=limits) as url,
            Device.connected(url, model.hello(), token="s3cret"),
        ):
            return await both(url), await asyncio.to_thread(get, url, "/metrics")

    pages, metrics = run(scenario())
    assert pages == [200, 200]
    assert metrics == 401  # never on the public port


def test_they_tell_when_the_engine_has_died(model):
    engine = Observed(model.engine())
    engine.gate.set()
    engine.step_fault = Panic("never seen before")

    async def scenario():
        fault = asyncio.get_running_loop().create_future()
        async with serving(model, engine=engine, on_fault=fault.set_result) as url:
            async with Device.connected(url, model.hello()) as device:
                await device.send(0, hidden_states(2))
                await device.fatal()
            await fault
            return await both(url)

    assert run(scenario()) == [503, 503]


def test_readiness_goes_first_when_the_server_is_told_to_stop(model):
    status = ServerStatus()
    limits = dataclasses.replace(LIMITS, linger_s=20.0)

    async def scenario():
        async with contextlib.AsyncExitStack() as devices:
            async with contextlib.AsyncExitStack() as server:
                url = await server.enter_async_context(serving(model, limits=limits, status=status))
                before = await both(url)
                device = await devices.enter_async_context(Device.connected(url, model.hello()))
                ending = asyncio.ensure_future(server.aclose())
                await status.leaving.wait()
                during = await both(url)
                await device.socket.send(device.session.close())
                await ending
            return before, during

    assert run(scenario()) == ([200, 200], [200, 503])

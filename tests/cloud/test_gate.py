"""Requests before they become connections, and what a token allows after that."""

import asyncio
import contextlib
import dataclasses
import http

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cloud.gate import Gate
from cloud.metrics import Metrics
from cloud.tokens import TokenStore
from lambda_split.errors import CapacityRefused, TokenRevoked
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


@pytest.fixture
def tokens(tmp_path):
    limited = "limited sha256:" + "0" * 64  # nobody has it
    return TokenStore(token_file(tmp_path, limited, someone="s3cret", other="an0ther"))


async def answer(url, **settings):
    """The HTTP response to a request that is refused."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(url, compression=None, **settings)
    return caught.value.response


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, "Bearer"),
        ({"Authorization": "Bearer wrong"}, 'Bearer error="invalid_token"'),
        ({"Authorization": "Bearer "}, 'Bearer error="invalid_token"'),
        ({"Authorization": "Bearer"}, 'Bearer error="invalid_token"'),
        ({"Authorization": "Digest s3cret"}, 'Bearer error="invalid_token"'),
        ({"Authorization": "s3cret"}, 'Bearer error="invalid_token"'),
        ({"Authorization": "Bearer s3cret extra"}, 'Bearer error="invalid_token"'),
        ([("Authorization", "Bearer s3cret")] * 2, 'Bearer error="invalid_token"'),
        ({"Authorization": "Bearer \u00e9"}, 'Bearer error="invalid_token"'),
    ],
    ids=str,
)
def test_without_a_token_the_upgrade_is_refused(model, tokens, headers, challenge, caplog):
    metrics = Metrics()
    caplog.set_level("INFO", "cloud")

    async def scenario():
        async with serving(model, tokens=tokens, metrics=metrics) as url:
            return await answer(url, additional_headers=headers)

    response = run(scenario())
    assert response.status_code == http.HTTPStatus.UNAUTHORIZED
    assert response.headers["WWW-Authenticate"] == challenge
    assert refusals(metrics, "http-401") == 1
    why = "an unknown token" if headers else "no token"
    assert f"refused a connection: HTTP 401, {why}" in caplog.messages


def test_each_token_opens_a_session(model, tokens):
    async def scenario():
        found = []
        async with serving(model, tokens=tokens) as url:
            for token in ("s3cret", "an0ther"):
                async with Device.connected(url, model.hello(), token=token) as device:
                    found.append(await device.forward(0, hidden_states(2)))
        return found

    wanted = Reference(model.trunk).forward(0, hidden_states(2))
    assert [same(found, wanted) for found in run(scenario())] == [True, True]


def test_a_revoked_token_is_told_so(model, tmp_path, caplog):
    caplog.set_level("INFO", "cloud")
    revoked = f"{token_file(tmp_path, gone='s3cret').read_text().strip()} revoked"
    tokens = TokenStore(token_file(tmp_path, revoked))

    async def scenario():
        async with serving(model, tokens=tokens) as url:
            return await answer(url, additional_headers={"Authorization": "Bearer s3cret"})

    response = run(scenario())
    assert response.status_code == http.HTTPStatus.UNAUTHORIZED
    assert 'error_description="revoked"' in response.headers["WWW-Authenticate"]
    assert "refused a connection: HTTP 401, the revoked token of gone" in caplog.messages


def test_a_token_revoked_between_the_request_and_the_connection_opens_nothing(
    model, tmp_path, monkeypatch
):
    path = token_file(tmp_path, someone="s3cret")
    tokens = TokenStore(path)
    check = Gate.check

    def check_then_reload(self, *request):
        response = check(self, *request)
        path.write_text("")
        tokens.reload()
        return response

    monkeypatch.setattr(Gate, "check", check_then_reload)

    async def scenario():
        async with serving(model, tokens=tokens) as url:
            headers = {"Authorization": "Bearer s3cret"}
            async with connect(url, compression=None, additional_headers=headers) as socket:
                device = Device(socket, model.hello())
                await socket.send(device.session.hello())
                return await device.fatal()

    error, _ = run(scenario())
    assert type(error) is TokenRevoked


def test_a_web_page_cannot_use_a_local_server(model, tokens):
    metrics = Metrics()

    async def scenario():
        async with serving(model, tokens=tokens, metrics=metrics) as url:
            headers = {"Authorization": "Bearer s3cret"}
            return await answer(url, origin="https://evil.example", additional_headers=headers)

    assert run(scenario()).status_code == http.HTTPStatus.FORBIDDEN
    assert refusals(metrics, "http-403") == 1


def refusals(metrics, reason):
    return metrics._registry.get_sample_value("lambda_split_refused_total", {"reason": reason})


async def get(url, path):
    """A plain HTTP request's answer."""
    host, port = url.removeprefix("ws://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    return text


def test_pages_for_probes_need_no_token_and_other_paths_do(model, tokens):
    async def scenario():
        async with serving(model, tokens=tokens) as url:
            return [await get(url, path) for path in ("/healthz", "/readyz?x=1", "/metrics", "/")]

    healthy, ready, *others = run(scenario())
    assert healthy.startswith("HTTP/1.1 200")
    assert healthy.endswith("\r\n\r\nalive\n")
    assert ready.startswith("HTTP/1.1 200")
    assert all(other.startswith("HTTP/1.1 401") for other in others)


def test_beyond_so_many_sessions_the_upgrade_is_refused(model):
    limits = dataclasses.replace(LIMITS, max_connections=2)
    metrics = Metrics()

    async def scenario():
        async with serving(model, limits=limits, metrics=metrics) as url:
            async with (
                Device.connected(url, model.hello()) as first,
                Device.connected(url, model.hello()),
            ):
                response = await answer(url)
                await first.forward(0, hidden_states(2))
            async with Device.connected(url, model.hello()) as device:
                await device.forward(0, hidden_states(2))
            return response

    response = run(scenario())
    assert response.status_code == http.HTTPStatus.SERVICE_UNAVAILABLE
    assert int(response.headers["Retry-After"]) > 0
    assert refusals(metrics, "http-503") == 1


def test_connections_without_a_session_do_not_count_as_full(model):
    limits = dataclasses.replace(LIMITS, max_connections=1)

    async def scenario():
        async with serving(model, limits=limits) as url, contextlib.AsyncExitStack() as stack:
            for _ in range(5):
                await stack.enter_async_context(connect(url, compression=None))
            async with Device.connected(url, model.hello()) as device:
                return await device.forward(0, hidden_states(2))

    assert run(scenario()).shape == (2, 64)


def test_a_token_has_so_many_sessions_and_no_more(model, tmp_path):
    path = token_file(tmp_path, few="s3cret", many="an0ther")
    first, second = path.read_text().splitlines()
    tokens = TokenStore(token_file(tmp_path, f"{first} max-sessions=2", second))

    async def refused(url, token):
        headers = {"Authorization": f"Bearer {token}"}
        async with connect(url, compression=None, additional_headers=headers) as socket:
            device = Device(socket, model.hello())
            await socket.send(device.session.hello())
            return await device.fatal()

    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(serving(model, tokens=tokens))

            async def opened(token):
                session = Device.connected(url, model.hello(), token=token)
                return await stack.enter_async_context(session)

            await opened("s3cret")
            async with Device.connected(url, model.hello(), token="s3cret"):
                ended = await refused(url, "s3cret")
                for _ in range(3):  # others are not counted with it
                    await opened("an0ther")
            await opened("s3cret")  # there is room again
            return ended, await refused(url, "s3cret")

    for error, code in run(scenario()):
        assert (type(error), code) == (CapacityRefused, 1008)
        assert "2 sessions of this token" in error.reason
        assert error.retry_after_s > 0


def test_a_token_that_is_taken_back_ends_its_sessions_and_no_others(model, tmp_path):
    tokens = TokenStore(token_file(tmp_path, someone="s3cret", other="an0ther"))

    async def scenario():
        async with (
            serving(model, tokens=tokens) as url,
            Device.connected(url, model.hello(), token="s3cret") as first,
            Device.connected(url, model.hello(), token="an0ther") as second,
            connect(
                url, compression=None, additional_headers={"Authorization": "Bearer s3cret"}
            ) as quiet,
        ):
            await first.forward(0, hidden_states(2))
            before = await second.forward(0, hidden_states(3, 1))
            token_file(tmp_path, other="an0ther")
            tokens.reload()
            ended = await asyncio.wait_for(first.fatal(), 30)
            device = Device(quiet, model.hello())
            await quiet.send(device.session.hello())
            late = await device.fatal()
            response = await answer(url, additional_headers={"Authorization": "Bearer s3cret"})
            return ended, late, response, [before, await second.forward(3, hidden_states(2, 2))]

    ended, late, response, kept = run(scenario())
    for error, code in (ended, late):
        assert (type(error), code) == (TokenRevoked, 1008)
    assert response.status_code == http.HTTPStatus.UNAUTHORIZED
    reference = Reference(model.trunk)
    assert same(kept[0], reference.forward(0, hidden_states(3, 1)))
    assert same(kept[1], reference.forward(3, hidden_states(2, 2)))


def test_a_token_marked_as_revoked_ends_its_sessions(model, tmp_path):
    line = token_file(tmp_path, someone="s3cret").read_text().strip()
    tokens = TokenStore(tmp_path / "tokens")

    async def scenario():
        async with (
            serving(model, tokens=tokens) as url,
            Device.connected(url, model.hello(), token="s3cret") as device,
        ):
            token_file(tmp_path, f"{line} max-sessions=7")
            tokens.reload()  # another limit is no reason to end anything
            await device.forward(0, hidden_states(2))
            token_file(tmp_path, f"{line} revoked")
            tokens.reload()
            return await asyncio.wait_for(device.fatal(), 30)

    error, code = run(scenario())
    assert (type(error), code) == (TokenRevoked, 1008)


def test_compression_is_not_agreed_to(model):
    async def scenario():
        async with serving(model) as url, connect(url, compression="deflate") as socket:
            return socket.request.headers, socket.response.headers

    asked, agreed = run(scenario())
    assert "permessage-deflate" in asked["Sec-WebSocket-Extensions"]
    assert "Sec-WebSocket-Extensions" not in agreed


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000,
        b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n",
        b"GET /" + b"y" * 100_000,
    ],
    ids=["many headers", "a long header", "a long path"],
)
def test_a_huge_request_is_not_read_to_its_end(model, request_):
    """It has no end, so that an answer before the handshake's time shows the bound."""
    patient = dataclasses.replace(LIMITS, handshake_s=60)

    async def scenario():
        async with serving(model, limits=patient) as url:
            host, port = url.removeprefix("ws://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(request_)
            with contextlib.suppress(ConnectionError):
                answered = await asyncio.wait_for(reader.read(), 30)
                assert b" 101 " not in answered
            writer.close()
            async with Device.connected(url, model.hello()) as device:
                return await device.forward(0, hidden_states(2))

    assert run(scenario()).shape == (2, 64)

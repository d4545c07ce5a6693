"""The gateway in front of real servers, without a cluster: what devices see when those go."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from cloud.connection import Limits
from cloud.replicas.replica import Place
from cloud.tokens import Grant, TokenStore, digest_of
from lambda_split.errors import (
    CapacityRefused,
    FingerprintRefused,
    TokenMissing,
    TokenRevoked,
    Unauthorized,
)
from lambda_split.wire.messages import Bye, ErrorMessage, Hello, parse_message, serialize_message
from tests.replicas.gateways import device, gateway_for, wait_until
from tests.servers import TrunkServer

MAX_BYTES = 1 << 20
# A busy machine must be done with its own part of a handshake in that time.
SHORT = Limits(handshake_s=4, goodbye_s=4.0, max_connections=3)


class Servers:
    """Plain servers, the first that is not to be avoided being the best."""

    def __init__(self, folder, token_file, token):
        self._arguments = str(folder), "--device", "cpu", "--token-file", str(token_file)
        self._token = token
        self.running: dict[str, TrunkServer] = {}

    def start(self, name, *arguments):
        server = self.running[name] = TrunkServer(*self._arguments, *arguments)
        server.start()
        return server

    async def place(self, avoid):
        names = sorted(self.running, key=lambda name: name in avoid)
        if not names:
            raise CapacityRefused("no replica is running", 1)
        url = self.running[names[0]].url
        return Place(replica=names[0], url=url, token=self._token, max_message_bytes=MAX_BYTES)


@pytest.fixture
def servers(tiny, tmp_path):
    token = secrets.token_hex(8)
    file = tmp_path / "token"
    file.write_text(Grant("gateway", digest_of(token)).line() + "\n")
    file.chmod(0o600)
    started = Servers(tiny.folder, file, token)
    yield started
    for server in started.running.values():
        server.close()


def hello(tiny, **changes):
    model = tiny.bundle.manifest.model
    wanted = {
        "protocol": 1,
        "fingerprint": model.fingerprint,
        "head_layers": 1,
        "tail_layers": 1,
        "hidden_size": 64,
        "codecs": ("fp32",),
        "max_positions": 64,
    }
    return serialize_message(Hello(**(wanted | changes)))


def last_words(socket):
    """The typed error that a connection ends with, and the close code."""
    error = None
    try:
        while True:
            message = parse_message(socket.recv(timeout=60))
            if isinstance(message, ErrorMessage):
                error = message.to_error()
    except ConnectionClosed as closed:
        return error.code, closed.rcvd.code


def test_a_lost_replica_is_a_drain_to_the_device(servers, tiny):
    servers.start("a")
    with gateway_for(servers) as front, connect(front.url, compression=None) as socket:
        socket.send(hello(tiny))
        assert parse_message(socket.recv()).max_positions == 64
        servers.running["a"].kill()
        assert last_words(socket) == ("server-draining", 1001)
        assert front.counted("gateway_sessions_moved_total", reason="lost") == 1
        assert front.counted("sessions_open") == 0


def test_a_generation_goes_on_at_another_server(servers, tiny):
    servers.start("a")
    servers.start("b")
    with gateway_for(servers) as front, device(tiny.bundle, front.url) as llm:
        expected = llm.generate("once upon", max_new_tokens=40).token_ids
        stream = llm.stream("once upon", max_new_tokens=40)
        next(stream)
        servers.running.pop("a").close()
        for _ in stream:
            pass
        assert llm.generate("once upon", max_new_tokens=40).token_ids == expected
        assert front.counted("sessions_total") == 2


def test_what_a_draining_server_says_is_passed_on(servers, tiny):
    servers.start("a")
    with gateway_for(servers) as front, connect(front.url, compression=None) as socket:
        socket.send(hello(tiny))
        socket.recv()
        assert servers.running.pop("a").stop() == 0
        assert last_words(socket) == ("server-draining", 1001)
        wait_until(
            lambda: front.counted("gateway_sessions_moved_total", reason="drained") == 1,
            30,
            "counted",
        )


def test_a_full_server_is_passed_over(servers, tiny):
    servers.start("a", "--max-sessions", "1")
    servers.start("b", "--max-sessions", "1")
    with gateway_for(servers) as front, contextlib.ExitStack() as stack:
        stack.enter_context(device(tiny.bundle, front.url))
        stack.enter_context(device(tiny.bundle, front.url))
        with pytest.raises(CapacityRefused):
            device(tiny.bundle, front.url)
        assert front.counted("sessions_total") == 2
        assert front.counted("refused_total", reason="capacity-refused") == 1


def test_a_server_that_is_gone_is_passed_over(servers, tiny):
    servers.start("a").kill()
    servers.start("b")
    with gateway_for(servers) as front, device(tiny.bundle, front.url) as llm:
        assert llm.generate("a", max_new_tokens=3).token_ids


def test_no_server_at_all(servers, tiny):
    with gateway_for(servers) as front, pytest.raises(CapacityRefused, match="no replica"):
        device(tiny.bundle, front.url)


def test_a_refusal_is_passed_on(servers, tiny):
    servers.start("a")
    with gateway_for(servers) as front, connect(front.url, compression=None) as socket:
        socket.send(hello(tiny, fingerprint="0" * 32))
        assert last_words(socket) == (FingerprintRefused.code, 1008)


@pytest.mark.parametrize(
    ("message", "code", "close"),
    [
        ("{", "message-malformed", 1002),
        (b"\x01\x02", "unexpected-message", 1002),
        (None, "handshake-timeout", 1002),
    ],
)
def test_a_bad_beginning_takes_no_place(servers, message, code, close):
    with (
        gateway_for(servers, limits=SHORT) as front,
        connect(front.url, compression=None) as socket,
    ):
        if message is not None:
            socket.send(message)
        assert last_words(socket) == (code, close)
        assert front.counted("sessions_total") == 0


def test_a_long_first_message_is_not_read(servers):
    with gateway_for(servers) as front, connect(front.url, compression=None) as socket:
        socket.send("x" * 20_000)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=60)
        assert closed.value.rcvd.code == 1009


def test_a_bye_is_no_session(servers):
    with gateway_for(servers) as front, connect(front.url, compression=None) as socket:
        socket.send(serialize_message(Bye()))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=60)
        assert closed.value.rcvd.code == 1000


def test_the_gate_stands_before_the_upgrade(servers, tiny):
    servers.start("a")
    with gateway_for(servers, token="right", limits=SHORT) as front:
        with pytest.raises(TokenMissing):
            device(tiny.bundle, front.url)
        with pytest.raises(Unauthorized):
            device(tiny.bundle, front.url, token="wrong")
        headers = {"Authorization": "Bearer right"}
        with contextlib.ExitStack() as stack:
            for _ in range(SHORT.max_connections):
                socket = stack.enter_context(connect(front.url, additional_headers=headers))
                socket.send(hello(tiny))
                socket.recv()
            with (
                pytest.raises(InvalidStatus) as refused,
                connect(front.url, additional_headers=headers),
            ):
                pytest.fail("it was let in")
            assert refused.value.response.status_code == 503
            assert front.counted("refused_total", reason="http-503") == 1
        page = headers | {"Origin": "http://page.example"}
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(front.url, additional_headers=page),
        ):
            pytest.fail("it was let in")
        assert refused.value.response.status_code == 403
        assert front.counted("refused_total", reason="http-401") == 2


def test_a_tokens_bound_on_sessions_holds_at_the_gateway(servers, tiny, tmp_path):
    servers.start("a")
    file = tmp_path / "tokens"
    file.write_text(Grant("two", digest_of("right"), max_sessions=2).line() + "\n")
    with gateway_for(servers, tokens=TokenStore(file)) as front, contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(device(tiny.bundle, front.url, token="right"))
        with pytest.raises(CapacityRefused, match="2 sessions of this token"):
            device(tiny.bundle, front.url, token="right")


def test_a_revoked_token_ends_its_sessions(servers, tiny, tmp_path):
    servers.start("a")
    file = tmp_path / "tokens"
    grant = Grant("one", digest_of("right"))
    file.write_text(grant.line() + "\n")
    store = TokenStore(file)
    headers = {"Authorization": "Bearer right"}
    with (
        gateway_for(servers, tokens=store) as front,
        connect(front.url, additional_headers=headers) as socket,
    ):
        socket.send(hello(tiny))
        socket.recv()
        file.write_text(grant.line() + " revoked\n")
        front.call(store.reload)
        assert last_words(socket) == (TokenRevoked.code, 1008)


def test_a_stopping_gateway_sends_devices_away(servers, tiny):
    servers.start("a")
    with contextlib.ExitStack() as outer, contextlib.ExitStack() as stack:
        front = stack.enter_context(gateway_for(servers))
        # Left only after the gateway: it stays connected while that stops.
        socket = outer.enter_context(connect(front.url, compression=None))
        socket.send(hello(tiny))
        socket.recv()
        began = time.monotonic()
        closer = threading.Thread(target=stack.pop_all().close)
        closer.start()
        assert last_words(socket) == ("server-draining", 1001)
        closer.join()
        assert time.monotonic() - began < 30


def test_a_device_that_vanishes_frees_its_place(servers, tiny):
    servers.start("a", "--max-sessions", "1")
    with gateway_for(servers) as front:
        with connect(front.url, compression=None) as socket:
            socket.send(hello(tiny))
            socket.recv()
            socket.socket.close()  # no goodbye

        def fits() -> bool:
            with contextlib.suppress(CapacityRefused), device(tiny.bundle, front.url):
                return True
            return False

        wait_until(fits, 60, "its place is free")


def test_a_place_keeps_its_token_out_of_logs():
    place = Place(replica="a", url="ws://127.0.0.1:1", token="secret", max_message_bytes=1)
    assert "secret" not in repr(place)

"""The handshake and single replies, against a server that does wrong in every way."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading

import numpy as np
import pytest

from edge_runtime import connection as connection_module
from edge_runtime.connection import Connection, Endpoint
from edge_runtime.link import Link
from edge_runtime.stats import Meter
from lambda_split.errors import (
    CapacityRefused,
    ConnectionLost,
    FrameLengthMismatch,
    FrameUnknownCodec,
    FrameUnknownKind,
    InternalError,
    MessageMalformed,
    NonFinite,
    RemoteError,
    SequenceBroken,
    ServerDraining,
    ServerUnreachable,
    TlsFileInvalid,
    TokenMissing,
    Unauthorized,
    UnexpectedMessage,
    UsageError,
)
from lambda_split.wire.codecs import decode, encode
from lambda_split.wire.frames import Codec, FrameKind
from lambda_split.wire.messages import Bye, Hello, serialize_message
from tests.certificates import Issuer
from tests.edge_runtime.hostile_server import Peer, hostile_server

WIDTH = 8
HELLO = Hello(
    protocol=1,
    fingerprint="0123456789abcdef",
    head_layers=1,
    tail_layers=1,
    hidden_size=WIDTH,
    codecs=("fp16",),
    max_positions=64,
)
ROWS = np.arange(5 * WIDTH, dtype=np.float32).reshape(5, WIDTH)


def _connect(url: str, hello: Hello = HELLO, **settings) -> Connection:
    endpoint = Endpoint(url, **{"connect_timeout_s": 60.0, "reply_timeout_s": 60.0, **settings})
    return Connection(endpoint, hello, max_chunk_tokens=16, meter=Meter())


def _send(connection: Connection, *, start: int = 0, reply: int = 5) -> None:
    connection.send(start, 5, encode(ROWS, Codec.FP16), reply=reply)


def _send_for_good(connection: Connection, *, tokens: int = 5) -> None:
    """Send until it fails."""
    encoded = encode(np.ones((tokens, WIDTH), np.float32), Codec.FP16)
    while True:
        connection.send(0, tokens, encoded, reply=0)


def test_no_more_in_flight_than_the_device_can_hold_replies_to() -> None:
    def script(peer):
        peer.welcome(max_in_flight=1024)
        for forward in [peer.forward() for _ in range(16)]:
            peer.reply(forward)

    with hostile_server(script) as server:
        connection = _connect(server.url)
        assert connection.max_in_flight == 16
        for _ in range(16):
            _send(connection)
        for _ in range(16):
            connection.receive()
        connection.close()


def test_what_a_server_grants_and_answers_arrives() -> None:
    def script(peer):
        peer.welcome(max_chunk_tokens=7, max_in_flight=3)
        peer.serve()

    with hostile_server(script) as server:
        connection = _connect(server.url)
        assert (connection.max_chunk_tokens, connection.max_in_flight) == (7, 3)
        _send(connection)
        _send(connection, start=5, reply=2)
        for reply in (5, 2):
            frame = connection.receive()
            found = decode(frame.payload, Codec.FP16, reply, WIDTH, scaled=frame.scaled)
            assert np.array_equal(found, ROWS[-reply:])
        connection.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:1",
        "localhost:8765",
        "ws://",
        "ws://[bad",
        "ws://localhost:99999",
        "ws://localhost:port",
        "ws://localhost:0",
        "ws://a..b/",
        f"ws://{'x' * 64}/",
        "",
    ],
)
def test_a_wrong_address_is_refused(url) -> None:
    with pytest.raises(UsageError):
        Endpoint(url)


@pytest.mark.parametrize("token", ["", "two words", "line\n", "naïve", "\x00"])
def test_a_token_that_no_header_can_hold_is_refused(token) -> None:
    with pytest.raises(UsageError, match="token"):
        Endpoint("ws://localhost:1", token)


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Endpoint("wss://[::1]:5/path", "secret"))


def test_a_ca_file_belongs_to_an_address_with_tls(tmp_path) -> None:
    with pytest.raises(UsageError, match="wss"):
        Endpoint("ws://localhost:1", ca_file=tmp_path / "ca.pem")
    assert Endpoint("ws://localhost:1").tls is None


@pytest.mark.parametrize(
    "content", [None, b"", b"no certificate\n"], ids=["absent", "empty", "text"]
)
def test_a_ca_file_that_cannot_be_used_is_named(tmp_path, content) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TlsFileInvalid, match=str(path)):
        Endpoint("wss://localhost:1", ca_file=path)


@pytest.mark.parametrize(
    ("url", "token", "warned"),
    [
        ("ws://trunk.example:1", "secret", True),
        ("ws://192.0.2.1", "secret", True),
        ("ws://trunk.example:1", None, False),
        ("wss://trunk.example:1", "secret", False),
        ("ws://127.0.0.1:1", "secret", False),
        ("ws://[::1]:1", "secret", False),
        ("ws://localhost:1", "secret", False),
    ],
)
def test_a_token_that_would_cross_the_network_in_the_clear_is_warned_about(
    caplog, url, token, warned
) -> None:
    Endpoint(url, token)
    assert ("unencrypted" in caplog.text) == warned
    assert "secret" not in caplog.text


def test_hidden_states_do_not_follow_a_redirect() -> None:
    """To another server, which the user never named; it must not even be said hello."""
    with hostile_server(Peer.serve) as elsewhere, socket.create_server(("127.0.0.1", 0)) as first:
        answer = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {elsewhere.url}\r\n\r\n"

        def redirect() -> None:
            with first.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer.encode())

        thread = threading.Thread(target=redirect)
        thread.start()
        with pytest.raises(ServerUnreachable):
            _connect(f"ws://127.0.0.1:{first.getsockname()[1]}", token="secret")
        thread.join()
        assert all(peer.hello is None for peer in elsewhere.peers)


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(ServerUnreachable, match=url):
            _connect(url)


def test_no_upgrade_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ServerUnreachable, match=r"0\.3 s"):
            _connect(url, connect_timeout_s=0.3)


def test_the_token_is_asked_for() -> None:
    def script(peer):
        peer.welcome()

    with hostile_server(script, token="right") as server:
        for token, error in ((None, TokenMissing), ("wrong", Unauthorized)):
            with pytest.raises(error):
                _connect(server.url, token=token)
        assert not server.peers
        _connect(server.url, token="right").close()


@pytest.mark.parametrize("status", [403, 404, 500, 502])
def test_http_errors_are_told(status) -> None:
    with (
        hostile_server(Peer.serve, status=status) as server,
        pytest.raises(ServerUnreachable, match=f"HTTP {status}"),
    ):
        _connect(server.url)


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_without_room_for_connections_is_full(status) -> None:
    with (
        hostile_server(Peer.serve, status=status, headers={"Retry-After": "7"}) as server,
        pytest.raises(CapacityRefused, match=rf"HTTP {status}.*in 7 s") as caught,
    ):
        _connect(server.url)
    assert caught.value.retry_after_s == 7


HANDSHAKES = {
    "a typed refusal": (lambda peer: peer.error(CapacityRefused("full", 3)), CapacityRefused),
    "an unknown error": (
        lambda peer: peer.socket.send('{"type":"error","code":"new","message":"m"}'),
        RemoteError,
    ),
    "a bye": (lambda peer: peer.socket.send(serialize_message(Bye())), ServerDraining),
    "no JSON": (lambda peer: peer.socket.send("{"), MessageMalformed),
    "a binary welcome": (
        lambda peer: (peer.socket.recv(), peer.socket.send(b"welcome")),
        UnexpectedMessage,
    ),
    "a hello": (lambda peer: peer.socket.send(serialize_message(HELLO)), UnexpectedMessage),
    "an answer": (lambda peer: peer.error(NonFinite("outgoing"), 0), SequenceBroken),
    "another codec": (lambda peer: peer.welcome(codec="bf16"), MessageMalformed),
    "an unknown codec": (lambda peer: peer.welcome(codec="fp1"), MessageMalformed),
    "fewer positions": (lambda peer: peer.welcome(max_positions=63), MessageMalformed),
    "no chunk": (lambda peer: peer.welcome(max_chunk_tokens=0), MessageMalformed),
    "an early end": (lambda peer: peer.socket.close(), ConnectionLost),
    "too much text": (lambda peer: peer.socket.send("x" * 100_000), MessageMalformed),
    "policy": (lambda peer: peer.socket.close(1008, "go away"), RemoteError),
}


@pytest.mark.parametrize("case", HANDSHAKES)
def test_handshakes_that_fail(case) -> None:
    script, error = HANDSHAKES[case]
    with hostile_server(script) as server, pytest.raises(error):
        _connect(server.url)


def test_silence_instead_of_a_welcome(monkeypatch) -> None:
    class PatientLink(Link):
        """The upgrade has to come within the same time: here it has more."""

        def __init__(self, endpoint, **settings) -> None:
            super().__init__(dataclasses.replace(endpoint, connect_timeout_s=60.0), **settings)

    def script(peer):
        peer.socket.recv()
        peer.socket.recv()  # until the device gives up

    monkeypatch.setattr(connection_module, "Link", PatientLink)
    with hostile_server(script) as server, pytest.raises(ConnectionLost, match=r"0\.3 s"):
        _connect(server.url, connect_timeout_s=0.3)


REPLIES = {
    "another sequence": (lambda peer, forward: peer.reply(forward, sequence=5), SequenceBroken),
    "another start": (lambda peer, forward: peer.reply(forward, start=1), UnexpectedMessage),
    "too few rows": (
        lambda peer, forward: peer.reply(
            forward, tokens=4, payload=forward.payload[: 4 * WIDTH * 2]
        ),
        UnexpectedMessage,
    ),
    "a short payload": (
        lambda peer, forward: peer.reply(forward, payload=forward.payload[:-1]),
        FrameLengthMismatch,
    ),
    "another codec": (
        lambda peer, forward: peer.reply(forward, codec=Codec.BF16),
        FrameUnknownCodec,
    ),
    "a forward": (
        lambda peer, forward: peer.reply(forward, kind=FrameKind.FORWARD),
        FrameUnknownKind,
    ),
    "a rejection": (
        lambda peer, forward: peer.error(NonFinite("incoming"), forward.sequence),
        NonFinite,
    ),
    "a rejection of another": (lambda peer, _: peer.error(NonFinite("x"), 9), SequenceBroken),
    "the server's fault": (lambda peer, _: peer.error(InternalError("abc")), InternalError),
    "a bye": (lambda peer, _: peer.socket.send(serialize_message(Bye())), ServerDraining),
    "a second welcome": (lambda peer, _: peer.socket.send("{}"), MessageMalformed),
    "too big": (lambda peer, _: peer.socket.close(1009, "message too big"), RemoteError),
    "protocol error": (lambda peer, _: peer.socket.close(1002), RemoteError),
    "going away": (lambda peer, _: peer.socket.close(1001), ConnectionLost),
    "cut off": (lambda peer, _: peer.socket.socket.shutdown(socket.SHUT_RDWR), ConnectionLost),
}


@pytest.mark.parametrize("case", REPLIES)
def test_replies_that_are_wrong(case) -> None:
    answer, error = REPLIES[case]

    def script(peer):
        peer.welcome()
        answer(peer, peer.forward())

    with hostile_server(script) as server:
        connection = _connect(server.url)
        _send(connection)
        with pytest.raises(error):
            connection.receive()
        connection.close()


def test_silence_instead_of_a_reply() -> None:
    def script(peer):
        peer.welcome()
        peer.forward()
        peer.forward()

    with hostile_server(script) as server:
        connection = _connect(server.url, reply_timeout_s=0.3)
        _send(connection)
        with pytest.raises(ConnectionLost, match=r"0\.3 s"):
            connection.receive()
        connection.close()


def test_a_parting_error_is_what_a_failed_send_raises() -> None:
    def script(peer):
        peer.welcome()
        peer.error(InternalError("abc"))

    with hostile_server(script) as server:
        connection = _connect(server.url)
        with pytest.raises(InternalError):
            _send_for_good(connection)
        connection.close()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_server_that_never_reads_is_given_up(tmp_path, secure) -> None:
    given_up = threading.Event()

    def script(peer):
        peer.welcome()
        given_up.wait(120)  # the library stops reading once its queue is full

    issuer = Issuer(tmp_path)
    context = issuer.issue("server").tls().context if secure else None
    with hostile_server(script, ssl=context) as server:
        ca_file = issuer.ca_file if secure else None
        connection = _connect(server.url, reply_timeout_s=0.5, ca_file=ca_file)
        try:
            with pytest.raises(ConnectionLost):
                _send_for_good(connection, tokens=1 << 16)
        finally:
            given_up.set()
        connection.close()


def test_bytes_that_come_while_a_send_fails_are_no_stack_trace(caplog, monkeypatch) -> None:
    """The library's sending thread has ended the stream that its receiving thread still reads."""

    def script(peer):
        peer.welcome()
        peer.serve()

    with hostile_server(script) as server, contextlib.closing(_connect(server.url)) as connection:
        protocol = connection._link._socket.protocol

        def ended_meanwhile(data, receive_data=protocol.receive_data) -> None:
            protocol.receive_eof()
            receive_data(data)

        monkeypatch.setattr(protocol, "receive_data", ended_meanwhile)
        _send(connection)
        with pytest.raises(ConnectionLost):
            connection.receive()
    assert caplog.text == ""

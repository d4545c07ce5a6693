"""Sending on a link that takes its time: nobody is held up, nothing is lost or reordered."""

from __future__ import annotations

import threading
import time

import msgspec
import numpy as np
import pytest

from edge_runtime import sender
from edge_runtime.connection import Connection, Endpoint
from edge_runtime.stats import Meter
from lambda_split.errors import ConnectionLost, InternalError
from lambda_split.wire.codecs import Encoded, encode
from lambda_split.wire.frames import Codec
from lambda_split.wire.messages import Hello
from tests.edge_runtime.hostile_server import MAX_TOKENS, hostile_server

WIDTH = 64 * 1024
ROW_BYTES = WIDTH * 2
HELLO = Hello(
    protocol=1,
    fingerprint="0123456789abcdef",
    head_layers=1,
    tail_layers=1,
    hidden_size=WIDTH,
    codecs=("fp16",),
    max_positions=100_000,
)


def _connect(url: str, **settings) -> Connection:
    endpoint = Endpoint(url, **{"connect_timeout_s": 60.0, "reply_timeout_s": 60.0, **settings})
    return Connection(endpoint, HELLO, max_chunk_tokens=MAX_TOKENS, meter=Meter())


def _encoded(tokens: int, seed: int = 0) -> Encoded:
    rows = np.random.default_rng(seed).integers(-9, 9, (tokens, WIDTH)).astype(np.float32)
    return encode(rows, Codec.FP16)


_others: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _threads_of_others():
    """Those that were there before: a fixture of the whole run may hold a session open."""
    _others.clear()
    _others.update(threading.enumerate())


def _senders() -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if thread.name == "sender" and thread not in _others
    ]


def test_a_reply_is_read_while_the_next_chunk_is_stuck() -> None:
    answered = threading.Event()

    def script(peer):
        peer.welcome()
        first = peer.forward()
        peer.reply(first)
        answered.wait(30)  # the library reads a little ahead, then nothing
        peer.serve()

    with hostile_server(script) as server:
        connection = _connect(server.url)
        first, second = _encoded(1, 1), _encoded(120, 2)  # 15.7 MB: the sockets don't hold it
        connection.send(0, 1, first, reply=1)
        connection.send(1, 120, second, reply=1)
        assert connection.receive().payload == first.payload
        assert connection._link._sender._waiting  # the second is still on its way
        answered.set()
        assert connection.receive().payload == second.payload[-ROW_BYTES:]
        connection.close()
    assert not _senders()


def test_chunks_of_all_lengths_arrive_whole_and_in_order(monkeypatch) -> None:
    monkeypatch.setattr(sender, "_FRAGMENT_BYTES", ROW_BYTES + 100)  # single rows go at once

    def script(peer):
        peer.welcome()
        peer.serve()

    lengths = [1, 9, 1, 1, 30, 2, 1, 17, 1]
    with hostile_server(script) as server:
        connection = _connect(server.url)
        sent = [_encoded(tokens, seed) for seed, tokens in enumerate(lengths)]
        start = 0
        for tokens, encoded in zip(lengths, sent, strict=True):
            while connection.in_flight >= connection.max_in_flight:
                connection.receive()
            connection.send(start, tokens, encoded, reply=0)
            start += tokens
        while connection.in_flight:
            connection.receive()
        connection.close()
    (peer,) = server.peers
    assert [bytes(forward.payload) for forward in peer.forwards] == [one.payload for one in sent]


def test_what_waits_to_be_sent_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(sender, "_QUEUE_BYTES", 1 << 20)
    most = 0
    reading = threading.Event()

    def script(peer):
        peer.welcome()
        reading.wait(30)
        peer.serve()

    def send_all():
        nonlocal most
        for start in range(0, 120, 4):  # half a megabyte each
            connection.send(start, 4, _encoded(4), reply=0)
            most = max(most, connection._link._sender._queued_bytes)

    with hostile_server(script) as server:
        connection = _connect(server.url)
        thread = threading.Thread(target=send_all)
        thread.start()
        thread.join(1.0)
        assert thread.is_alive()  # it waits for the server
        reading.set()
        thread.join(30)
        assert not thread.is_alive()
        while connection.in_flight:
            connection.receive()
        connection.close()
    assert 0 < most <= 1 << 20


def test_who_waits_for_a_reply_learns_that_sending_failed() -> None:
    over = threading.Event()

    def script(peer):
        peer.welcome()
        over.wait(60)

    with hostile_server(script) as server:
        connection = _connect(server.url, reply_timeout_s=0.5)
        begin = time.monotonic()
        connection.send(0, 120, _encoded(120), reply=0)
        with pytest.raises(ConnectionLost, match=r"read nothing for 0\.5 s|no answer within"):
            connection.receive()
        with pytest.raises(ConnectionLost, match=r"read nothing for 0\.5 s"):
            connection._link._sender.flush()
        connection.close()
        assert time.monotonic() - begin < 30  # not when the server ends it
        over.set()
    assert not _senders()


def test_the_server_s_reason_is_told_although_it_came_during_a_long_send() -> None:
    def script(peer):
        peer.welcome()
        peer.error(InternalError("abc"))

    with hostile_server(script) as server:
        connection = _connect(server.url)
        connection.send(0, 120, _encoded(120), reply=0)
        with pytest.raises(InternalError, match="abc"):
            connection.receive()
        connection.close()
    assert not _senders()


def test_short_messages_need_no_thread() -> None:
    def script(peer):
        peer.welcome()
        peer.serve()

    hello = msgspec.structs.replace(HELLO, hidden_size=8)
    with hostile_server(script) as server:
        connection = Connection(Endpoint(server.url), hello, max_chunk_tokens=8, meter=Meter())
        for start in range(20):
            connection.send(start, 1, encode(np.ones((1, 8), np.float32), Codec.FP16), reply=1)
            connection.receive()
        assert not _senders()
        connection.close()


def test_a_failure_just_before_it_would_wait_for_room_is_told() -> None:
    class LateFailure(threading.Condition):
        """Lets the link fail between two looks at the state, as the other thread may."""

        entered = -1

        def __enter__(self) -> bool:
            self.entered += self.entered >= 0
            if self.entered == 2:
                waiting._fail(ConnectionLost("cut"))
            return super().__enter__()

    waiting = sender.MessageSender(None, stall_s=1.0)
    waiting._thread = threading.Thread()  # the one that sends is in the middle of a message
    waiting._waiting.append(b"x")
    waiting._queued_bytes = sender._QUEUE_BYTES
    waiting._changed = LateFailure()
    waiting._changed.entered = 0
    raised = []

    def send() -> None:
        with pytest.raises(ConnectionLost, match="cut"):
            waiting.send(bytes(100_000))
        raised.append(True)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(30)
    assert raised


@pytest.mark.parametrize("more", [b"x", bytes(100_000)], ids=["short", "long"])
def test_who_waits_until_it_has_gone_learns_that_another_thread_has_stopped_it(more) -> None:
    class Stuck:
        """A connection on which nothing gets any further until it is let."""

        begun, go_on = threading.Event(), threading.Event()

        def send(self, _message) -> None:
            self.begun.set()
            assert self.go_on.wait(60)

    connection = Stuck()
    waiting = sender.MessageSender(connection, stall_s=60.0)
    waiting.send(bytes(sender._QUEUE_BYTES))
    assert connection.begun.wait(60)
    raised = []

    def send() -> None:
        with pytest.raises(ConnectionLost, match="closed"):
            waiting.send(more)
        raised.append(True)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    waiting.end()
    thread.join(30)
    connection.go_on.set()
    waiting.stop()
    assert raised


def test_closing_never_raises_also_where_another_thread_has_just_failed_to_send() -> None:
    def script(peer):
        peer.welcome()
        peer.serve()

    with hostile_server(script) as server:
        connection = _connect(server.url)
        connection._link._sender._fail(ConnectionLost("the server has read nothing"))
        connection.close()
    assert not _senders()

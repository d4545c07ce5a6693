"""How a device replays when servers change, fail or have no room."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from edge_runtime.retry import RetryPolicy
from lambda_split.errors import (
    CapacityRefused,
    FingerprintRefused,
    NonFinite,
    RemoteError,
    SequenceBroken,
    ServerDraining,
    SessionEvicted,
)
from tests.edge_runtime.hostile_server import hostile_server
from tests.edge_runtime.replaying import ROWS, open_trunk


def _spans(peer) -> list[tuple[int, int, int]]:
    return [(frame.start, frame.tokens, frame.reply) for frame in peer.forwards]


def test_a_replica_that_takes_smaller_frames_gets_smaller_frames(caplog) -> None:
    def script(peer):
        if peer.number == 0:
            peer.welcome(max_chunk_tokens=32)
            peer.reply(peer.forward())
            peer.forward()
            peer.forward()
            return  # two chunks unanswered
        peer.welcome(max_chunk_tokens=12, max_in_flight=2)
        peer.serve()

    with caplog.at_level(logging.WARNING), hostile_server(script) as server:
        trunk = open_trunk(server.url)
        trunk.send(0, ROWS[:20], reply=20)
        assert np.array_equal(trunk.receive(), ROWS[:20])
        trunk.send(20, ROWS[20:50], reply=30)
        trunk.send(50, ROWS[50:80], reply=14)
        assert np.array_equal(trunk.receive(), ROWS[20:50])
        assert np.array_equal(trunk.receive(), ROWS[66:80])
        assert trunk.chunk_tokens == 12
        # A chunk that was cut for the server before goes in pieces, too.
        trunk.send(80, ROWS[80:100], reply=1)
        assert np.array_equal(trunk.receive(), ROWS[99:])
        trunk.close()
    assert _spans(server.peers[1]) == [
        *[(0, 12, 0), (12, 8, 0)],  # answered before
        *[(20, 12, 12), (32, 12, 12), (44, 6, 6)],
        *[(50, 12, 0), (62, 12, 8), (74, 6, 6)],
        *[(80, 12, 0), (92, 8, 1)],
    ]
    payload = b"".join(frame.payload for frame in server.peers[1].forwards)
    assert payload == ROWS.astype(np.float16).tobytes()
    assert [record.message for record in caplog.records if "interrupted" in record.message] == [
        caplog.records[0].message
    ]


def test_a_link_lost_between_the_pieces_of_a_chunk() -> None:
    def script(peer):
        peer.welcome(max_chunk_tokens=10, max_in_flight=2)
        if peer.number == 0:
            first, _ = peer.forward(), peer.forward()
            peer.reply(first)
            peer.forward()  # sent once the first reply has arrived
            return
        peer.serve()

    with hostile_server(script) as server:
        trunk = open_trunk(server.url)
        trunk.send(0, ROWS[:32], reply=32)
        assert np.array_equal(trunk.receive(), ROWS[:32])
        trunk.close()
    # The first reply had arrived and is not asked for again.
    assert _spans(server.peers[1]) == [(0, 10, 0), (10, 10, 10), (20, 10, 10), (30, 2, 2)]


def test_no_more_is_in_flight_than_the_server_takes() -> None:
    def script(peer):
        peer.welcome(max_chunk_tokens=4, max_in_flight=2)
        first, second = peer.forward(), peer.forward()
        with pytest.raises(TimeoutError):
            peer.socket.recv(timeout=0.2)
        peer.reply(first)
        peer.reply(second)
        peer.serve()

    with hostile_server(script) as server:
        trunk = open_trunk(server.url)
        trunk.send(0, ROWS[:30], reply=30)
        assert np.array_equal(trunk.receive(), ROWS[:30])
        trunk.close()


def test_an_outage_is_told_once(caplog) -> None:
    def script(peer):
        if 0 < peer.number < 6:
            return  # no welcome
        peer.welcome()
        if peer.number in {0, 7}:
            peer.reply(peer.forward())
        elif peer.number == 6:
            peer.forward()  # a welcome, but no reply either
            return
        peer.serve()

    with caplog.at_level(logging.WARNING), hostile_server(script) as server:
        trunk = open_trunk(server.url)
        trunk.send(0, ROWS[:1], reply=1)
        trunk.receive()
        server.peers[0].socket.close()
        trunk.send(1, ROWS[1:2], reply=1)
        assert np.array_equal(trunk.receive(), ROWS[1:2])
        trunk.close()
    assert len(server.peers) == 8
    assert sum("interrupted" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("trouble", [ServerDraining(), SessionEvicted()])
def test_a_server_in_trouble_is_replaced(trouble) -> None:
    def script(peer):
        peer.welcome()
        if peer.number == 0:
            peer.forward()
            peer.error(trouble)
            return
        peer.serve()

    with hostile_server(script) as server:
        trunk = open_trunk(server.url)
        trunk.send(0, ROWS[:20], reply=20)
        assert np.array_equal(trunk.receive(), ROWS[:20])
        trunk.close()


def test_a_full_server_is_asked_again_when_it_said() -> None:
    arrivals: list[float] = []

    def script(peer):
        arrivals.append(time.monotonic())
        if peer.number == 1:
            peer.socket.recv()
            peer.error(CapacityRefused("full", 1))
            return
        peer.welcome()
        if peer.number == 0:
            peer.forward()
            return
        peer.serve()

    with hostile_server(script) as server:
        trunk = open_trunk(server.url)
        trunk.send(0, ROWS[:20], reply=20)
        assert np.array_equal(trunk.receive(), ROWS[:20])
        trunk.close()
    assert arrivals[2] - arrivals[1] > 0.95


@dataclass(frozen=True)
class _Recording(RetryPolicy):
    """A policy that remembers what it was asked."""

    asked: list = field(default_factory=list)

    def __post_init__(self) -> None:
        """Its settings are the defaults."""

    def delay_s(self, attempt, **wishes):
        self.asked.append((attempt, wishes))
        return 0.0


@pytest.mark.parametrize(
    ("trouble", "wished_s", "spread"),
    [
        (None, 0.0, False),
        (ServerDraining(), 0.0, True),
        (SessionEvicted(), 0.0, True),
        (CapacityRefused("full", 9), 9, False),
    ],
)
def test_what_a_server_said_decides_when_it_is_asked_again(trouble, wished_s, spread) -> None:
    def script(peer):
        if peer.number == 1:
            peer.socket.recv()
            if trouble is not None:
                peer.error(trouble)
            return
        peer.welcome()
        if peer.number == 0:
            peer.forward()
            return
        peer.serve()

    policy = _Recording()
    with hostile_server(script) as server:
        trunk = open_trunk(server.url, retry=policy)
        trunk.send(0, ROWS[:20], reply=20)
        assert np.array_equal(trunk.receive(), ROWS[:20])
        trunk.close()
    assert policy.asked == [
        (0, {"wished_s": 0.0, "spread": False}),
        (1, {"wished_s": wished_s, "spread": spread}),
    ]


def test_http_503_is_asked_again_when_it_said() -> None:
    arrivals: list[float] = []

    def status(number):
        arrivals.append(time.monotonic())
        return 503 if number in {1, 2} else None

    def script(peer):
        peer.welcome()
        if peer.number == 0:
            peer.forward()
            return
        peer.serve()

    with hostile_server(script, status=status, headers={"Retry-After": "1"}) as server:
        trunk = open_trunk(server.url)
        trunk.send(0, ROWS[:20], reply=20)
        assert np.array_equal(trunk.receive(), ROWS[:20])
        trunk.close()
    _, *waits = np.diff(arrivals)  # the first request after the loss comes when it comes
    assert [late > 0.95 for late in waits] == [True, True]


@pytest.mark.parametrize("full", ["refused", "http"])
def test_a_server_that_is_full_at_first_is_told_at_once(full) -> None:
    def script(peer):
        peer.socket.recv()
        peer.error(CapacityRefused("full", 5))

    settings = {"status": 503, "headers": {"Retry-After": "5"}} if full == "http" else {}
    with hostile_server(script, **settings) as server:
        with pytest.raises(CapacityRefused, match="again in 5 s"):
            open_trunk(server.url)
        assert server.requests == 1


def test_a_replay_is_announced_and_goes_as_fast_as_the_server_takes_it() -> None:
    def script(peer):
        peer.welcome(max_chunk_tokens=10, max_in_flight=4 if peer.number else 8)
        if peer.number == 0:
            for _ in range(4):
                peer.reply(peer.forward())
            peer.forward()
            return
        if peer.number == 1:
            # Nothing is answered before all four that may be in flight have come.
            for forward in [peer.forward() for _ in range(4)]:
                peer.reply(forward)
        peer.serve()

    with hostile_server(script) as server:
        trunk = open_trunk(server.url)
        trunk.send(0, ROWS[:40], reply=1)
        trunk.receive()
        trunk.send(40, ROWS[40:50], reply=10)
        assert np.array_equal(trunk.receive(), ROWS[40:50])
        trunk.close()
    assert [peer.hello.replay_positions for peer in server.peers] == [0, 40]
    assert _spans(server.peers[1]) == [*((at, 10, 0) for at in range(0, 40, 10)), (40, 10, 10)]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda peer, forward: peer.reply(forward, sequence=9), SequenceBroken),
        (lambda peer, forward: peer.error(NonFinite("incoming"), forward.sequence), NonFinite),
        (lambda peer, _: peer.socket.close(1009, "message too big"), RemoteError),
        (lambda peer, _: peer.error(FingerprintRefused("a", "b", "c")), FingerprintRefused),
    ],
)
def test_what_replaying_cannot_mend_is_raised_and_the_session_can_go_on(answer, error) -> None:
    def script(peer):
        peer.welcome()
        if peer.number == 0:
            peer.reply(peer.forward())
            answer(peer, peer.forward())
            return
        peer.serve()

    with hostile_server(script) as server:
        trunk = open_trunk(server.url)
        trunk.send(0, ROWS[:20], reply=20)
        trunk.receive()
        trunk.send(20, ROWS[20:40], reply=20)
        with pytest.raises(error):
            trunk.receive()
        trunk.truncate(20)
        assert len(server.peers) == 1  # not tried again by itself
        trunk.send(20, ROWS[20:40], reply=20)
        assert np.array_equal(trunk.receive(), ROWS[20:40])
        trunk.close()

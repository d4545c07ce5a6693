"""How a session ends: interrupted, given up, closed."""

from __future__ import annotations

import signal
import threading
import time

import msgspec
import numpy as np
import pytest

from edge_runtime import outage
from lambda_split.errors import CapacityRefused, ConnectionLost, UsageError
from tests.edge_runtime.hostile_server import hostile_server
from tests.edge_runtime.replaying import MANIFEST, ROWS, open_trunk


def _exchange(trunk, rows, interrupt):
    interrupt.start()  # here it is caught, however soon it comes
    trunk.send(0, rows, reply=1)
    trunk.receive()


@pytest.mark.parametrize("size", [400, 60, 2])
def test_an_interrupt_while_the_link_is_stuck_leaves_nothing_behind(size) -> None:
    over = threading.Event()
    width = 4096 * 8
    wide = np.ones((400, width), np.float32)  # in fp16 25 MB: more than queue and sockets hold
    manifest = msgspec.structs.replace(
        MANIFEST, geometry=msgspec.structs.replace(MANIFEST.geometry, hidden_size=width)
    )

    def script(peer):
        peer.welcome()
        if peer.number == 0:
            over.wait(60)  # nothing is read meanwhile
        peer.serve()

    before = set(threading.enumerate())  # a fixture of the whole run may hold a session open
    main = threading.main_thread().ident
    interrupt = threading.Timer(0.5, lambda: signal.pthread_kill(main, signal.SIGINT))
    with hostile_server(script) as server:
        trunk = open_trunk(server.url, manifest=manifest, chunk_tokens=128)
        with pytest.raises(KeyboardInterrupt):
            _exchange(trunk, wide[:size], interrupt)
        begin = time.monotonic()
        trunk.abandon()
        over.set()
        assert time.monotonic() - begin < 30  # no goodbye behind megabytes
        for thread in set(threading.enumerate()) - before:
            if thread.name == "sender":
                thread.join(30)
                assert not thread.is_alive()
        assert trunk.length == 0
        trunk.send(0, wide[:3], reply=3)
        assert np.array_equal(trunk.receive(), wide[:3])
        trunk.close()


class _Clock:
    """Stands in for the module ``time`` in an outage: only sleeping takes time, a second at least.

    However long a machine stands still, so many attempts are made.
    """

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += max(seconds, 1.0)


@pytest.fixture
def _clock(monkeypatch):
    monkeypatch.setattr(outage, "time", _Clock())


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("_clock")
def test_a_server_that_wishes_an_eternity_is_given_up_in_time() -> None:
    def script(peer):
        if peer.number == 0:
            peer.welcome()
            peer.forward()
            return
        peer.socket.recv()
        peer.error(CapacityRefused("full", (1 << 53) - 1))

    with hostile_server(script) as server:
        trunk = open_trunk(server.url, give_up_after_s=3)
        trunk.send(0, ROWS[:20], reply=20)
        with pytest.raises(ConnectionLost, match=r"full.*gave up after 3 s"):
            trunk.receive()
        trunk.close()


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("_clock")
def test_a_server_that_never_answers_is_given_up() -> None:
    def script(peer):
        peer.welcome()
        while True:
            peer.forward()

    with hostile_server(script) as server:
        trunk = open_trunk(server.url, reply_timeout_s=0.1, give_up_after_s=3)
        trunk.send(0, ROWS[:20], reply=20)
        with pytest.raises(ConnectionLost, match=r"0\.1 s; gave up after 3 s"):
            trunk.receive()
        trunk.close()
    assert len(server.peers) == 4


def test_a_closed_session_stays_closed() -> None:
    def script(peer):
        peer.welcome()
        peer.serve()

    with hostile_server(script) as server:
        trunk = open_trunk(server.url)
        trunk.close()
        trunk.close()
        with pytest.raises(UsageError, match="closed"):
            trunk.send(0, ROWS[:20], reply=20)
        with pytest.raises(UsageError, match="closed"):
            trunk.receive()
    assert len(server.peers) == 1


def test_a_session_that_another_thread_closes_while_it_begins_to_wait_says_so(monkeypatch) -> None:
    def script(peer):
        peer.welcome()
        peer.serve()

    with hostile_server(script) as server:
        trunk = open_trunk(server.url)
        trunk.send(0, ROWS[:20], reply=20)
        receive_once = trunk._receive_once

        def closed_meanwhile():
            trunk.close()
            return receive_once()

        monkeypatch.setattr(trunk, "_receive_once", closed_meanwhile)
        with pytest.raises(UsageError, match="closed"):
            trunk.receive()
    assert len(server.peers) == 1

"""A TCP proxy on loopback that cuts connections on demand, in the middle of whatever passes."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator

from tests.relay import Relay, at_once, shut_down

__all__ = ["CuttingProxy", "cutting_proxy"]


class CuttingProxy:
    """Forwards to a port; cuts each connection after a random number of bytes.

    It leaves connections alone until it is armed; then it cuts those that are open, and each of the
    next ``cuts`` connections after ``low`` to ``high`` bytes (both ways together).
    """

    def __init__(self, target_port: int, seed: int, low: int, high: int) -> None:
        self._random = random.Random(seed)
        self._range = (low, high)
        self._lock = threading.Lock()
        self.cuts_left = 0
        self._open: set[socket.socket] = set()
        self._relay = Relay(target_port, self._carry)
        self.url = self._relay.url

    def arm(self, cuts: int) -> None:
        """From now on connections are cut."""
        self.cuts_left = cuts
        for end in list(self._open):
            shut_down(end)

    def close(self) -> None:
        self._relay.close()

    def _carry(self, device: socket.socket, server: socket.socket) -> None:
        self._open.add(device)
        budget = _Budget(self._random.randint(*self._range) if self.cuts_left > 0 else None)
        at_once(
            lambda: self._pump(device, server, budget), lambda: self._pump(server, device, budget)
        )
        self._open.discard(device)

    def _pump(self, source: socket.socket, sink: socket.socket, budget: _Budget) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                allowed = budget.take(len(data))
                sink.sendall(data[:allowed])
                if allowed < len(data):
                    with self._lock:
                        self.cuts_left -= 1
                    break
        shut_down(source)
        shut_down(sink)


class _Budget:
    def __init__(self, left: int | None) -> None:
        self._left = left
        self._lock = threading.Lock()

    def take(self, wanted: int) -> int:
        with self._lock:
            if self._left is None:
                return wanted
            taken = min(wanted, self._left)
            self._left -= taken
            return taken


@contextlib.contextmanager
def cutting_proxy(target_port: int, *, seed: int, low: int, high: int) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(target_port, seed, low, high)
    try:
        yield proxy
    finally:
        proxy.close()

"""A TCP proxy on loopback that cuts connections on demand, in the middle of whatever passes."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator

__all__ = ["CuttingProxy", "cutting_proxy"]


class CuttingProxy:
    """Forwards to a port; cuts each connection after a random number of bytes.

    It leaves connections alone until it is armed; then it cuts those that are open, and each of the
    next ``cuts`` connections after ``low`` to ``high`` bytes (both ways together).
    """

    def __init__(self, target_port: int, seed: int, low: int, high: int) -> None:
        self._target_port = target_port
        self._random = random.Random(seed)
        self._range = (low, high)
        self._lock = threading.Lock()
        self.cuts_left = 0
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def arm(self, cuts: int) -> None:
        """From now on connections are cut."""
        self.cuts_left = cuts
        for end in list(self._open):
            _shut_down(end)

    def close(self) -> None:
        _shut_down(self._listener)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                device, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(device,), daemon=True).start()

    def _forward(self, device: socket.socket) -> None:
        with contextlib.closing(device):
            try:
                server = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                return
            with contextlib.closing(server):
                self._open.add(device)
                budget = _Budget(self._random.randint(*self._range) if self.cuts_left > 0 else None)
                ways = [
                    threading.Thread(target=self._pump, args=pair, daemon=True)
                    for pair in ((device, server, budget), (server, device, budget))
                ]
                for way in ways:
                    way.start()
                for way in ways:
                    way.join()
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
        _shut_down(source)
        _shut_down(sink)


def _shut_down(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


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

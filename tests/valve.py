"""A TCP proxy on loopback that holds back what a server says, for as long as a test wants."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from tests.relay import Relay, at_once, shut_down

__all__ = ["Valve", "valve_before"]

_PORTION_BYTES = 1000
_PAUSE_S = 0.1


class Valve:
    """Forwards to a port; all that its server says may be stopped after so many bytes.

    However fast a server is, and however late a test looks, what is held back has not come.
    """

    def __init__(self, target_port: int) -> None:
        self._changed = threading.Condition()
        self._left: int | None = None  # bytes that may still come down; None for all
        self._relay = Relay(target_port, self._carry)
        self.port, self.url = self._relay.port, self._relay.url

    @contextlib.contextmanager
    def held_after(self, count: int) -> Iterator[None]:
        """Inside a ``with`` block no more than so many bytes come down, and those slowly."""
        self._allow(count)
        try:
            yield
        finally:
            self._allow(None)

    def close(self) -> None:
        self._allow(None)
        self._relay.close()

    def _allow(self, count: int | None) -> None:
        with self._changed:
            self._left = count
            self._changed.notify_all()

    def _carry(self, device: socket.socket, server: socket.socket) -> None:
        at_once(lambda: self._pump_up(device, server), lambda: self._pump_down(server, device))

    def _pump_up(self, device: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := device.recv(65536):
                server.sendall(data)
        shut_down(device)
        shut_down(server)

    def _pump_down(self, server: socket.socket, device: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                while data:
                    allowed = self._take(len(data))
                    device.sendall(data[:allowed])
                    data = data[allowed:]
        shut_down(device)
        shut_down(server)

    def _take(self, wanted: int) -> int:
        """Wait until some bytes may come down; how many."""
        with self._changed:
            self._changed.wait_for(lambda: self._left is None or self._left > 0)
            if self._left is None:
                return wanted
            taken = min(wanted, self._left, _PORTION_BYTES)
            self._left -= taken
        time.sleep(_PAUSE_S)
        return taken


@contextlib.contextmanager
def valve_before(target_port: int) -> Iterator[Valve]:
    valve = Valve(target_port)
    try:
        yield valve
    finally:
        valve.close()

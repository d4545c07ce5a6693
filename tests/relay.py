"""What stands between a device and a server of a test: accepts on loopback, and connects onward."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

__all__ = ["Relay", "at_once", "shut_down"]


class Relay:
    """Connects whoever comes to a port.

    Args:
        target_port: On loopback.
        carry: Called in a thread for each connection, with the device's end and the server's;
            both are closed when it returns.
    """

    def __init__(
        self, target_port: int, carry: Callable[[socket.socket, socket.socket], None]
    ) -> None:
        self._target_port = target_port
        self._carry = carry
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"ws://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Accept nobody any more."""
        shut_down(self._listener)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                device, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(device,), daemon=True).start()

    def _connect(self, device: socket.socket) -> None:
        with contextlib.closing(device):
            try:
                server = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                return
            with contextlib.closing(server):
                self._carry(device, server)


def at_once(*ways: Callable[[], None]) -> None:
    """Run functions in threads, and wait until all have returned."""
    threads = [threading.Thread(target=way, daemon=True) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def shut_down(end: socket.socket) -> None:
    """Let whoever reads from a socket find its end."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)

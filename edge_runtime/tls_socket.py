"""A TLS socket that one thread may read while another writes.

The WebSocket library does that, and OpenSSL does not allow it: a connection's state may be used by
one thread at a time. In TLS 1.3 the server sends session tickets just after the handshake, at
whatever moment. Where the library's thread reads one while the upgrade request is being written,
the request is lost, or the connection fails with it: with servers that send tickets, as proxies and
load balancers do, about one connection in a hundred got no answer. Python's own lock around OpenSSL
came with 3.13, so here reading and writing take turns, and nobody waits for the network during his.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self, TypeVar

from edge_runtime.readiness import wait_readable, wait_writable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["TlsSocket"]

_T = TypeVar("_T")


class TlsSocket(ssl.SSLSocket):
    """What :meth:`ssl.SSLContext.wrap_socket` returns where this is its ``sslsocket_class``.

    ``recv``, ``send`` and ``sendall`` may be called from two threads; other ways to read and write
    are as in Python's own class. Timeouts mean what they mean there.
    """

    _turn: threading.RLock

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Python's class has a constructor that only refuses to be called."""
        made = super().__new__(cls, *args, **kwargs)
        made._turn = threading.RLock()
        return made

    def settimeout(self, value: float | None, /) -> None:
        """See :meth:`socket.socket.settimeout`."""
        with self._turn:  # a turn changes it and sets it back
            super().settimeout(value)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """See :meth:`socket.socket.recv`."""
        read = super().recv
        return self._take_turns(lambda: read(buflen, flags))

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """See :meth:`socket.socket.send`; ``sendall`` comes through here, too."""
        write = super().send
        return self._take_turns(lambda: write(data, flags))

    def _take_turns(self, operation: Callable[[], _T]) -> _T:
        """Do something that does not wait, as often as it takes; wait in between, without a turn.

        Raises:
            TimeoutError: it took longer than the socket's timeout.
        """
        began = time.monotonic()
        while True:
            with self._turn:
                patience = self.gettimeout()
                super().settimeout(0.0)
                try:
                    return operation()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError) as error:
                    reason: OSError = error
                finally:
                    super().settimeout(patience)
            if patience == 0.0:
                raise reason
            left = None if patience is None else began + patience - time.monotonic()
            wait = wait_writable if isinstance(reason, ssl.SSLWantWriteError) else wait_readable
            if not wait(self, left):
                raise TimeoutError("timed out") from reason

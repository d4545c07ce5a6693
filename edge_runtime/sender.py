"""Sending without waiting for the link: a thread that feeds the socket while others compute.

A prompt's hidden states are megabytes, and a phone's uplink takes seconds for them. While a send
blocks, neither head nor tail would work; worse, the WebSocket library holds one lock for a whole
blocking send, so that not even replies that have arrived could be read. Long messages are therefore
queued here, and a thread writes them in small fragments, each when the socket has room for it.
"""

from __future__ import annotations

import collections
import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Protocol

from edge_runtime.readiness import wait_writable
from lambda_split.errors import ConnectionLost

__all__ = ["MessageSender"]

# One fragment is written at a time. A socket counts as having room when a third of its buffer is
# free, which is more than this on every system, so that writing it hardly blocks.
_FRAGMENT_BYTES = 16 * 1024
# What may wait besides the message being written: enough for a fast link's round trip, and small
# beside what the device keeps of a long conversation anyway.
_QUEUE_BYTES = 16 * 1024 * 1024


class _Socket(Protocol):
    """What is used of the library's connection."""

    @property
    def socket(self) -> socket.socket: ...

    def send(self, message: str | bytes | Iterator[memoryview]) -> None: ...


class MessageSender:
    """Sends messages in their order; short ones at once, long ones from a thread of its own.

    One thread uses it. Its own thread begins with the first long message and ends with
    :meth:`stop`.
    """

    def __init__(self, connection: _Socket, *, stall_s: float) -> None:
        """Send on an open connection.

        Args:
            connection: Nobody else sends on it.
            stall_s: The peer is given up if the socket takes nothing for that long.
        """
        self._connection = connection
        self._stall_s = stall_s
        self._changed = threading.Condition()
        # Guarded by the condition. The message being written stays in front until it is out.
        self._waiting: collections.deque[bytes] = collections.deque()
        self._queued_bytes = 0
        self._failure: Exception | None = None
        self._stopped = False
        self._thread: threading.Thread | None = None

    def send(self, message: str | bytes) -> None:
        """Send a message, or queue it; waits while very much is queued already.

        Raises:
            OSError, websockets.exceptions.WebSocketException: as the library's ``send``, for this
                message or an earlier one.
            ConnectionLost: the socket took nothing for too long, or it was stopped meanwhile.
        """
        with self._changed:
            self._raise_failure()
            idle = not self._waiting
        # A token's hidden state goes without a detour: handing it over would take longer.
        if isinstance(message, str) or (idle and len(message) <= _FRAGMENT_BYTES):
            self.flush()
            self._connection.send(message)
            return
        if self._thread is None:
            # A daemon: it must not keep a process alive that ends without closing.
            self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
            self._thread.start()
        with self._changed:
            # Looked for before each wait: after it nobody would end that.
            self._raise_if_over()
            while self._waiting and self._queued_bytes + len(message) > _QUEUE_BYTES:
                self._changed.wait()
                self._raise_if_over()
            self._waiting.append(message)
            self._queued_bytes += len(message)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until everything is written; raises as :meth:`send`."""
        with self._changed:
            while self._waiting:
                self._raise_if_over()
                self._changed.wait()
            self._raise_failure()

    @property
    def failure(self) -> Exception | None:
        """Why sending failed, if it has."""
        with self._changed:
            return self._failure

    def cut_off(self) -> None:
        """End the connection now; what has not left this machine is dropped."""
        layout = "hh" if os.name == "nt" else "ii"
        with contextlib.suppress(OSError):  # it is gone already
            # The kernel, too, drops what it has not sent.
            linger = struct.pack(layout, 1, 0)
            self._connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        with contextlib.suppress(OSError):
            # Not the TLS socket's own method: a write under way would go on, unencrypted.
            socket.socket.shutdown(self._connection.socket, socket.SHUT_RDWR)

    def end(self) -> None:
        """As :meth:`stop`, without waiting until the thread has ended."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def stop(self) -> None:
        """End the thread; the connection is cut off, or there is nothing to send any more."""
        self.end()
        if self._thread is not None:
            self._thread.join()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _raise_if_over(self) -> None:
        """Where nothing is written any more: another thread may have stopped it."""
        self._raise_failure()
        if self._stopped:
            raise ConnectionLost("it was closed")

    # --- on the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while (message := self._next()) is not None:
            try:
                self._connection.send(self._fragments(message))
            except Exception as error:  # noqa: BLE001 - raised by the next send
                self._fail(error)
                return
            with self._changed:
                self._waiting.popleft()
                self._queued_bytes -= len(message)
                self._changed.notify_all()

    def _next(self) -> bytes | None:
        with self._changed:
            while not (self._waiting or self._stopped):
                self._changed.wait()
            return None if self._stopped else self._waiting[0]

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failure = self._failure or error  # the first one is the cause
            self._changed.notify_all()

    def _fragments(self, message: bytes) -> Iterator[memoryview]:
        view = memoryview(message)
        for start in range(0, len(view), _FRAGMENT_BYTES):
            # The library's lock is free meanwhile, so that replies can be read.
            if not wait_writable(self._connection.socket, self._stall_s):
                error = ConnectionLost(f"the server has read nothing for {self._stall_s:g} s")
                self._fail(error)
                # Before the library tries to say goodbye, which would block again.
                self.cut_off()
                raise error
            yield view[start : start + _FRAGMENT_BYTES]

"""Connections that have not been welcomed yet, and a bound on how many there are.

From the moment that TCP connects until its hello is accepted, a connection costs a file descriptor
and some memory and has shown nothing. Each of its steps has a time limit, but thousands may be in
those few seconds at once, so their number is bounded as well: where it is reached, one of them is
cut off, the oldest of the address that has the most. Whoever floods the server competes with
himself, and those who were welcomed are not counted.

Each of them also takes time of the one thread that serves everybody: to accept it, to read and
answer its request, to close it. So only so many are accepted in a second, and few in one turn of
the event loop. The others wait in the kernel, and those who have a session do not notice.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import ipaddress
import logging
import socket
import time
from typing import Any

__all__ = ["AcceptPace", "CountingListener", "Newcomers", "ignore_pauses"]

_logger = logging.getLogger(__name__)
_PER_TURN = 2
_BURST_S = 2.0  # a server that comes back is met by all its devices at once


class Newcomers:
    """The sockets of connections that have not been welcomed, oldest first.

    Args:
        limit: The most at a time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sockets: dict[int, tuple[socket.socket, str]] = {}
        self.dropped = 0

    def __len__(self) -> int:
        self._forget_closed()
        return len(self._sockets)

    def admit(self, connection: socket.socket, peer: str) -> None:
        """Count a connection, and cut another one off where there are too many.

        Args:
            connection: Just accepted.
            peer: Its address.
        """
        # A descriptor that is in use again belonged to a connection that is closed.
        self._sockets.pop(connection.fileno(), None)
        if len(self._sockets) >= self._limit:
            self._forget_closed()
        if len(self._sockets) >= self._limit:
            self._drop_one()
        self._sockets[connection.fileno()] = (connection, _network(peer))

    def settle(self, descriptor: int) -> None:
        """A connection was welcomed, and counts no longer.

        Args:
            descriptor: Its socket's file descriptor.
        """
        self._sockets.pop(descriptor, None)

    def _forget_closed(self) -> None:
        for descriptor, (connection, _) in list(self._sockets.items()):
            if connection.fileno() != descriptor:
                del self._sockets[descriptor]

    def _drop_one(self) -> None:
        crowd = collections.Counter(network for _, network in self._sockets.values())
        largest = max(crowd.values())
        descriptor, (oldest, network) = next(
            item for item in self._sockets.items() if crowd[item[1][1]] == largest
        )
        del self._sockets[descriptor]
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # 1, 2, 4 …: a flood must not fill the log
            _logger.warning(
                "%d connections say no hello: cut one of %s (%d so far)",
                self._limit,
                network,
                self.dropped,
            )
        # The event loop then finds the connection at its end, and closes it as any other.
        with contextlib.suppress(OSError):
            oldest.shutdown(socket.SHUT_RDWR)


class AcceptPace:
    """How many connections are accepted: so many a second, and a burst of those of some seconds.

    Args:
        per_s: Connections a second.
    """

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s * _BURST_S)
        self._left = self._most
        self._counted_at = time.monotonic()

    def allows(self, now: float) -> bool:
        """Whether one more may be accepted at that moment."""
        refilled = self._left + (now - self._counted_at) * self._per_s
        self._left, self._counted_at = min(self._most, refilled), now
        return self._left >= 1.0

    def count(self) -> None:
        """One was accepted."""
        self._left -= 1.0


class _Pause(OSError):
    """Enough connections for now."""

    def __init__(self) -> None:
        super().__init__(errno.EMFILE, "enough connections for now")


def ignore_pauses(loop: asyncio.AbstractEventLoop) -> None:
    """Let an event loop say nothing when :class:`CountingListener` has it pause.

    Nor when the server has stopped meanwhile: after the pause the loop finds the socket closed.
    """
    before = loop.get_exception_handler()

    def handle(handling: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        gone = isinstance(error, ValueError) and "._start_serving(" in context.get("message", "")
        if gone or isinstance(error, _Pause):
            return
        if before is None:
            handling.default_exception_handler(context)
        else:
            before(handling, context)

    loop.set_exception_handler(handle)


class CountingListener(socket.socket):
    """A listening socket whose accepted connections are counted as newcomers, and paced.

    The event loop accepts until it is told that nobody waits any more. It is told so after a few
    connections, so that others have their turn; and where the pace is reached, it is told what a
    process without free descriptors would be told: it then stops listening for a second.

    Args:
        listener: A bound socket; it is taken over, and closed with this one.
        newcomers: Where to count.
        pace: How many to accept.
    """

    def __init__(self, listener: socket.socket, newcomers: Newcomers, pace: AcceptPace) -> None:
        super().__init__(listener.family, listener.type, listener.proto, listener.detach())
        self._newcomers = newcomers
        self._pace = pace
        self._turn = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection.

        Raises:
            BlockingIOError: nobody waits, or those who do have to wait for a turn.
            OSError: also where the pace is reached.
        """
        if self._turn == _PER_TURN:
            self._turn = 0
            raise BlockingIOError(errno.EAGAIN, "others have their turn")
        self._turn += 1
        if not self._pace.allows(time.monotonic()):
            self._turn = 0
            raise _Pause
        try:
            connection, address = super().accept()
        except OSError:
            self._turn = 0
            raise
        self._pace.count()
        self._newcomers.admit(connection, str(address[0]))
        return connection, address


def _network(peer: str) -> str:
    """Who shares a bound: an IPv4 address, or the /64 that one customer has of IPv6."""
    address = ipaddress.ip_address(peer.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), 64), strict=False).network_address) + "/64"
    return str(address)

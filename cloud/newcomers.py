"""Connections that have not been welcomed yet, and a bound on how many there are.

From the moment that TCP connects until its hello is accepted, a connection costs a file descriptor
and some memory and has shown nothing. Each of its steps has a time limit, but thousands may be in
those few seconds at once, so their number is bounded as well: where it is reached, one of them is
cut off, the oldest of the address that has the most. Whoever floods the server competes with
himself, and those who were welcomed are not counted.
"""

from __future__ import annotations

import collections
import contextlib
import ipaddress
import logging
import socket
from typing import Any

__all__ = ["CountingListener", "Newcomers"]

_logger = logging.getLogger(__name__)


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


class CountingListener(socket.socket):
    """A listening socket whose accepted connections are counted as newcomers.

    Args:
        listener: A bound socket; it is taken over, and closed with this one.
        newcomers: Where to count.
    """

    def __init__(self, listener: socket.socket, newcomers: Newcomers) -> None:
        super().__init__(listener.family, listener.type, listener.proto, listener.detach())
        self._newcomers = newcomers

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        connection, address = super().accept()
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

"""Where the server listens."""

from __future__ import annotations

import ipaddress
import socket

from lambda_split.errors import AddressUnavailable

__all__ = ["bind", "is_loopback", "url_of"]


def bind(host: str, port: int) -> socket.socket:
    """Reserve an address, without listening yet: loading a model takes a while.

    Args:
        host: A name or an address; of several addresses of a name, the first.
        port: 0 picks a free one.

    Returns:
        A bound socket.

    Raises:
        AddressUnavailable: no such host, or the port is taken or forbidden.
    """
    address = f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, socket_address = found[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise AddressUnavailable(address, _reason(error)) from error
    try:
        # A restarted server takes its port again at once, although old connections linger.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(socket_address)
    except (OSError, OverflowError) as error:
        listener.close()
        raise AddressUnavailable(address, _reason(error)) from error
    return listener


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine can connect."""
    address: str = listener.getsockname()[0]
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def url_of(listener: socket.socket) -> str:
    """Where clients connect, such as ``ws://127.0.0.1:8765``."""
    host, port = listener.getsockname()[:2]
    return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"

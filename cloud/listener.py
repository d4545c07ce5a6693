"""Where the server listens."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterator

from lambda_split.errors import AddressUnavailable, UsageError

__all__ = ["bind", "check_exposure", "is_loopback", "listening", "url_of"]


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


@contextlib.contextmanager
def listening(listener: socket.socket) -> Iterator[None]:
    """For the ``with`` block in which a bound socket begins to listen.

    Several may be bound to an address that can be taken again at once, and one of them can listen.

    Raises:
        AddressUnavailable: another one was quicker.
    """
    host, port = listener.getsockname()[:2]
    try:
        yield
    except OSError as error:
        raise AddressUnavailable(f"{host}:{port}", _reason(error)) from error


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine can connect."""
    address: str = listener.getsockname()[0]
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def url_of(listener: socket.socket, *, tls: bool = False) -> str:
    """Where clients connect, such as ``ws://127.0.0.1:8765``, or ``wss://…`` with TLS."""
    scheme = "wss" if tls else "ws"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def check_exposure(
    host: str, *, loopback: bool, has_tls: bool, has_tokens: bool, insecure: bool
) -> None:
    """Refuse to serve other machines without TLS or without tokens, unless told to.

    Args:
        host: What the user asked to listen on, for the message.
        loopback: Whether only this machine can connect there.
        has_tls: Whether the server has a certificate.
        has_tokens: Whether it wants tokens.
        insecure: Whether the user says that it may go without.

    Raises:
        UsageError: others can connect, and one of the two is missing.
    """
    missing = [] if has_tls else ["--tls-cert and --tls-key, or what crosses the wire can be read"]
    missing += [] if has_tokens else ["a --token-file, or whoever reaches the port can use it"]
    if loopback or insecure or not missing:
        return
    raise UsageError(
        f"--host {host} can be reached from other machines: give {'; and '.join(missing)}. "
        "--insecure serves without (behind a proxy that does both, say)"
    )

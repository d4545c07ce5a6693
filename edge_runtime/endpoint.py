"""Where the trunk is, and how to reach it."""

from __future__ import annotations

import ipaddress
import logging
import os
import ssl
import urllib.parse
from dataclasses import dataclass, field

from edge_runtime.tls import client_context
from lambda_split.errors import UsageError

__all__ = ["Endpoint"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Endpoint:
    """Where the trunk is and how to reach it.

    Attributes:
        url: ``ws://`` or ``wss://`` address.
        token: Bearer token for the upgrade request; never logged.
        connect_timeout_s: For TCP, TLS, upgrade and welcome, each.
        reply_timeout_s: A reply that takes longer, or a message that the server does not read for
            so long, counts as a lost connection.
        ca_file: PEM file with issuers to trust beside the system's, for ``wss://``.
        tls: What the connection trusts; made from the above, None for ``ws://``.

    Raises:
        UsageError: the address is no WebSocket address, the token cannot stand in a header, or
            there is a ``ca_file`` for an address without TLS.
        TlsFileInvalid: the ``ca_file`` cannot be used.
    """

    url: str
    token: str | None = None
    connect_timeout_s: float = 10.0
    reply_timeout_s: float = 60.0
    ca_file: str | os.PathLike[str] | None = None
    tls: ssl.SSLContext | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        _check_url(self.url)
        # Once, not for each connection: the system's issuers are many.
        if urllib.parse.urlsplit(self.url).scheme == "wss":
            object.__setattr__(self, "tls", client_context(self.ca_file))
        elif self.ca_file is not None:
            raise UsageError(f"a CA file is for wss:// addresses, and {self.url} is none")
        token = self.token
        if token is not None and (
            not token or not token.isascii() or not token.isprintable() or " " in token
        ):
            raise UsageError("the token must be printable ASCII characters without spaces")
        if token is not None and self.tls is None and not _is_local(self.url):
            _logger.warning(
                "the token and all hidden states cross the network unencrypted: %s is "
                "no wss:// address",
                self.url,
            )

    def __repr__(self) -> str:
        secret = "" if self.token is None else ", token=…"
        return f"Endpoint(url={self.url!r}{secret})"


def _check_url(url: str) -> None:
    """Refuse what would fail in the socket library, each part in a way of its own."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except (ValueError, UnicodeError, AttributeError) as error:
        raise UsageError(f"{url!r} is not a WebSocket address: {error}") from error
    if parts.scheme not in {"ws", "wss"}:
        raise UsageError(f"the server's address {url!r} must begin with ws:// or wss://")
    if not host or port == 0:
        raise UsageError(f"{url!r} is not a WebSocket address: it must be like ws://HOST:PORT")


def _is_local(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"

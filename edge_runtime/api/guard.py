"""Who may use the server: programs of this machine, or those with the key; no web page unasked.

A page in the user's browser can send requests to a server on loopback, and with DNS rebinding read
the answers: it makes its own name resolve to 127.0.0.1. So requests for a name that is not the
server's are refused, and those that a page sends, unless its origin is allowed.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_runtime.api.failures import failure_of
from edge_runtime.api.names import host_name
from edge_runtime.api.responding import failure_response
from lambda_split.errors import (
    ApiError,
    HostRefused,
    KeyRefused,
    OriginRefused,
    Stopping,
    TooManyConnections,
)

__all__ = ["Access", "CrowdGuard", "HostGuard", "KeyGuard", "StopGuard", "is_loopback"]

_OPEN_PATHS = frozenset({"/health", "/openapi.json"})  # they tell nothing that a key protects
_CROWD_RETRY_AFTER_S = 5  # connections that rest after an answer are closed after so long


@dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes:
        hosts: Names that it goes by, beside those of loopback.
        origins: Web pages that may use it, such as ``http://localhost:3000``.
        api_key: What every request must carry; None asks for none.
    """

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    api_key: str | None = None

    def __repr__(self) -> str:
        key = "None" if self.api_key is None else "…"
        return f"Access(hosts={self.hosts}, origins={self.origins}, api_key={key})"


class HostGuard:
    """Refuses requests for another host's name, and those that a web page sent.

    Args:
        app: What they are passed on to.
        hosts: Names that the server goes by, beside those of loopback.
        origins: Web pages that may send requests.
        own_origin: So may the server's own page.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Sequence[str],
        origins: Collection[str],
        *,
        own_origin: bool = False,
    ) -> None:
        self._app = app
        self._own_origin = own_origin
        self._hosts = frozenset(map(host_name, hosts))
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            error: ApiError | None = None
            host, origin = headers.get("host", ""), headers.get("origin")
            if not self._knows(host):
                error = HostRefused()
            elif origin is not None and not self._may_send(origin, host):
                error = OriginRefused()
            if error is not None:
                await failure_response(failure_of(error))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _may_send(self, origin: str, host: str) -> bool:
        own = self._own_origin and origin in {f"http://{host}", f"https://{host}"}
        return own or origin in self._origins

    def _knows(self, host: str) -> bool:
        name = host_name(host)
        return is_loopback(name) or name in self._hosts


class CrowdGuard:
    """Refuses requests while more clients are connected than may, those that ask nothing included.

    Uvicorn has such a limit of its own, but answers with text.
    """

    def __init__(self, app: ASGIApp, limit: int, connections: Callable[[], int]) -> None:
        """Put it before an application.

        Args:
            app: The application.
            limit: The most connections.
            connections: How many there are.
        """
        self._app = app
        self._limit = limit
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 503 and close its connection."""
        if scope["type"] == "http" and self._connections() > self._limit:
            response = failure_response(
                failure_of(TooManyConnections(self._limit, _CROWD_RETRY_AFTER_S))
            )
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


class StopGuard:
    """Ends requests quietly when the server stops.

    Uvicorn cancels those that are not done in time, and would log where each of them was.
    """

    def __init__(self, app: ASGIApp, stopping: Callable[[], bool]) -> None:
        """Put it before an application.

        Args:
            app: The application.
            stopping: Whether the server was told to stop.
        """
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; answer 503 where it is cancelled before it was answered."""
        begun = False

        async def note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, note)
        except asyncio.CancelledError:
            if scope["type"] != "http" or not self._stopping():
                raise
            if not begun:  # else the connection is cut, so that a part is not taken for the whole
                await failure_response(failure_of(Stopping()))(scope, receive, send)


class KeyGuard:
    """Refuses requests without the API key."""

    def __init__(self, app: ASGIApp, api_key: str | None) -> None:
        self._app = app
        self._expected = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401."""
        if scope["type"] == "http" and self._expected is not None:
            scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
            known = hmac.compare_digest(given.strip().encode("latin-1"), self._expected)
            known &= scheme.lower() == "bearer"  # in any case (RFC 9110, section 11.1)
            if not known and scope["path"] not in _OPEN_PATHS:
                await failure_response(failure_of(KeyRefused()))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether a name or address is of this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761, section 6.3

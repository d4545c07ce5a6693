"""What happens to a request before it becomes a WebSocket connection.

In this order: a page for probes, which needs no token and tells nothing about anybody; a request
from a browser (403); no valid token (401); one whose connections were cut off lately (429); a full
server (503). Whatever passes is remembered with what its token allows.
"""

from __future__ import annotations

import contextlib
import http
import logging
import math
import weakref
from collections.abc import Iterator

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import MultipleValuesError
from websockets.http11 import Request, Response

from cloud.grants import Guest, Guests
from cloud.guarded import GuardedConnection
from cloud.metrics import Metrics
from cloud.newcomers import Newcomers
from cloud.penalties import Penalties
from cloud.status import ServerStatus, status_page
from cloud.tokens import Grant, TokenStore
from lambda_split.errors import ServerDraining

__all__ = ["Gate"]

_logger = logging.getLogger(__name__)
_RETRY_AFTER_S = 10


class Gate:
    """Decides about requests, and knows who came through.

    Args:
        newcomers: Connections leave them when they are welcomed.
        max_connections: The most welcomed connections at a time.
        status: What probes are told, and whether newcomers are sent elsewhere.
        metrics: Counts refusals.
        tokens: Who may use the server; None lets everyone in.
    """

    def __init__(
        self,
        newcomers: Newcomers,
        *,
        max_connections: int,
        status: ServerStatus,
        metrics: Metrics,
        tokens: TokenStore | None = None,
    ) -> None:
        self._newcomers = newcomers
        self._max_connections = max_connections
        self._tokens = tokens
        self._status = status
        self._metrics = metrics
        self._guests = Guests()
        self._penalties = Penalties()
        self._settled = 0
        self._grants: weakref.WeakKeyDictionary[ServerConnection, Grant] = (
            weakref.WeakKeyDictionary()
        )

    @contextlib.contextmanager
    def watching_tokens(self) -> Iterator[None]:
        """Inside a ``with`` block, end connections whose tokens a reload has taken away."""
        tokens = self._tokens
        if tokens is None:
            yield
            return
        with tokens.watched(lambda: self._guests.review(tokens.current)):
            yield

    def check(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a request, or return None to let it become a connection."""
        page = status_page(request.path, self._status)
        if page is not None:
            return connection.respond(*page)
        # Browsers send an Origin, devices don't: a web page must not reach a local server.
        if "Origin" in request.headers:
            return self._refuse(connection, http.HTTPStatus.FORBIDDEN, "not for web pages\n")
        if self._tokens is not None:
            refusal = self._check_token(self._tokens, connection, request)
            if refusal is not None:
                return refusal
        if self._status.leaving.is_set():
            # Before the upgrade, so that a proxy in front can turn to another replica by itself.
            return self._busy(connection, f"{ServerDraining.code}\n", retry_after_s=1)
        if self._settled >= self._max_connections:
            return self._busy(connection, "try again later\n", retry_after_s=_RETRY_AFTER_S)
        return None

    def _check_token(
        self, tokens: TokenStore, connection: ServerConnection, request: Request
    ) -> Response | None:
        grant = tokens.grant(_authorization(request))
        if grant is None or grant.revoked:
            return self._unauthorized(connection, request, grant)
        if wait_s := self._penalties.wait_s(grant.name):
            status = http.HTTPStatus.TOO_MANY_REQUESTS
            text = "connections of this token were cut off: try again later\n"
            return self._later(connection, status, text, math.ceil(wait_s))
        self._grants[connection] = grant
        return None

    def grant(self, connection: ServerConnection) -> Grant | None:
        """What a connection's token allows; None where the server wants no tokens."""
        return self._grants.get(connection)

    @contextlib.contextmanager
    def admit(self, connection: ServerConnection) -> Iterator[Guest]:
        """Know a connection that passed for as long as the ``with`` block lasts."""
        descriptor = connection.transport.get_extra_info("socket").fileno()
        settled = False

        def settle() -> None:
            nonlocal settled
            if not settled:
                settled = True
                self._settled += 1
                self._newcomers.settle(descriptor)

        try:
            with self._guests.admit(self.grant(connection), settle) as guest:
                if self._tokens is not None:
                    # A reload since the check of the request did not know this connection yet.
                    guest.review(self._tokens.current)
                yield guest
        finally:
            self._settled -= settled
            grant = self.grant(connection)
            if (
                grant is not None
                and isinstance(connection, GuardedConnection)
                and connection.was_cut_off
            ):
                self._penalties.offend(grant.name)

    def _unauthorized(
        self, connection: ServerConnection, request: Request, grant: Grant | None
    ) -> Response:
        # RFC 6750, section 3: an error where a token was sent, none where there was no token.
        challenge, text, why = "Bearer", "give a token\n", "no token"
        if grant is not None:
            challenge = 'Bearer error="invalid_token", error_description="revoked"'
            text, why = "this token was revoked\n", f"the revoked token of {grant.name}"
        elif "Authorization" in request.headers:
            challenge, text = 'Bearer error="invalid_token"', "give a valid token\n"
            why = "an unknown token"
        response = self._refuse(connection, http.HTTPStatus.UNAUTHORIZED, text, why)
        response.headers["WWW-Authenticate"] = challenge
        return response

    def _busy(self, connection: ServerConnection, text: str, *, retry_after_s: int) -> Response:
        return self._later(connection, http.HTTPStatus.SERVICE_UNAVAILABLE, text, retry_after_s)

    def _later(
        self,
        connection: ServerConnection,
        status: http.HTTPStatus,
        text: str,
        retry_after_s: int,
    ) -> Response:
        response = self._refuse(connection, status, text)
        response.headers["Retry-After"] = str(retry_after_s)
        return response

    def _refuse(
        self, connection: ServerConnection, status: http.HTTPStatus, text: str, why: str = ""
    ) -> Response:
        _logger.info("refused a connection: HTTP %d%s", status, f", {why}" if why else "")
        self._metrics.refused(reason=f"http-{status.value}")
        return connection.respond(status, text)


def _authorization(request: Request) -> str:
    try:
        return request.headers.get("Authorization", "")
    except MultipleValuesError:
        return ""

"""The WebSocket server: who may connect, and how it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import http
import logging
import socket
from collections.abc import AsyncIterator, Callable

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.datastructures import MultipleValuesError
from websockets.http11 import Request, Response

from cloud.connection import Connection, Limits, Service
from cloud.engine import Engine
from cloud.listener import url_of
from cloud.pacing import Pacing
from cloud.scheduler import Scheduler, Waiting
from lambda_split import __version__
from lambda_split.errors import InternalError
from lambda_split.wire.handshake import ServerOffer
from lambda_split.wire.messages import MAX_MESSAGE_BYTES

__all__ = ["serve"]

_logger = logging.getLogger(__name__)
_PING_S = 20  # a device that vanished without a word is noticed after one or two of these
_SCHEME = "Bearer "
_RETRY_AFTER_S = 10


@contextlib.asynccontextmanager
async def serve(
    engine: Engine,
    offer: ServerOffer,
    listener: socket.socket,
    *,
    limits: Limits | None = None,
    pacing: Pacing | None = None,
    waiting: Waiting | None = None,
    token: str | None = None,
    on_fault: Callable[[InternalError], None] | None = None,
) -> AsyncIterator[str]:
    """Serve an engine inside an ``async with`` block.

    Leaving the block stops accepting, answers what is under way, tells all sessions
    :class:`~lambda_split.errors.ServerDraining` and ends within a few seconds.

    Args:
        engine: Run by a thread of its own.
        offer: What the handshake compares with.
        listener: A bound socket; closed at the end.
        limits: What one connection may ask; the defaults where None.
        pacing: How steps are filled; the defaults where None.
        waiting: How much may wait; the defaults where None.
        token: The bearer token that the upgrade request must have; None lets everyone in.
        on_fault: Called in the event loop when the engine's thread has died of a fault: nothing can
            be served any more, so leave the block.

    Yields:
        The URL to connect to.
    """
    limits = limits or Limits()
    scheduler = Scheduler(engine, pacing=pacing, waiting=waiting)
    service = Service(offer, scheduler, limits)

    async def handle(connection: ServerConnection) -> None:
        await Connection(connection, service).run()

    # The library's log of details has frames and headers in it: hidden states and tokens.
    library_logger = logging.getLogger(f"{__name__}.websockets")
    library_logger.setLevel(logging.WARNING)
    server = await serve_websockets(
        handle,
        sock=listener,
        # Browsers send an Origin, devices don't: a web page must not reach a local server.
        origins=[None],
        process_request=_gate(token, limits.max_connections),
        compression=None,  # hidden states don't deflate, and it costs memory per connection
        max_size=MAX_MESSAGE_BYTES,  # a hello; an accepted session may send whole chunks
        max_queue=2,  # beyond what a device may have in flight, read little ahead
        open_timeout=limits.handshake_s,
        close_timeout=limits.goodbye_s,
        ping_interval=_PING_S,
        ping_timeout=_PING_S,
        server_header=f"lambda-split/{__version__}",
        logger=library_logger,
    )
    if on_fault is not None:
        fault = asyncio.wrap_future(scheduler.fault)
        fault.add_done_callback(lambda done: on_fault(done.result()))
    scheduler.start()
    try:
        yield url_of(listener)
    finally:
        await _stop(server, service)


async def _stop(server: Server, service: Service) -> None:
    _logger.info("stopping: %d sessions open", len(server.connections))
    limits = service.limits
    server.close(close_connections=False)
    service.draining.set()
    patience = limits.drain_s + 2 * limits.goodbye_s
    try:
        async with asyncio.timeout(patience):
            await server.wait_closed()
    except TimeoutError:
        _logger.warning("stopping: not all connections closed in time")
    finally:  # also where this is canceled: the process cannot end before the engine's thread
        await service.scheduler.stop(patience_s=0.5)


def _gate(
    token: str | None, max_connections: int
) -> Callable[[ServerConnection, Request], Response | None]:
    """Check the bearer token, and the number of connections, before the upgrade."""
    expected = None if token is None else hashlib.sha256(token.encode()).digest()

    def check(connection: ServerConnection, request: Request) -> Response | None:
        if expected is not None and not _has_token(request, expected):
            _logger.info("refused a connection without a valid token")
            response = connection.respond(http.HTTPStatus.UNAUTHORIZED, "give a valid token\n")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        if len(connection.server.connections) >= max_connections:
            _logger.warning("refused a connection: %d are open", max_connections)
            response = connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "try again later\n")
            response.headers["Retry-After"] = str(_RETRY_AFTER_S)
            return response
        return None

    return check


def _has_token(request: Request, expected: bytes) -> bool:
    try:
        header = request.headers.get("Authorization", "")
    except MultipleValuesError:
        return False
    scheme, given = header[: len(_SCHEME)], header[len(_SCHEME) :]
    # Digests have one length, and comparing them takes the same time wherever they differ.
    digest = hashlib.sha256(given.strip().encode("utf-8", "surrogateescape")).digest()
    return hmac.compare_digest(digest, expected) and scheme.lower() == _SCHEME.lower()

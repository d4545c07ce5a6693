"""The WebSocket server: who may connect, and how it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.http11 import Request, Response

from cloud.admission import Waiting
from cloud.connection import Connection, Limits, Service
from cloud.conversation import ModelKind
from cloud.gate import Gate
from cloud.guarded import GuardedConnection
from cloud.listener import listening, url_of
from cloud.metrics import Metrics
from cloud.newcomers import AcceptPace, CountingListener, Newcomers, ignore_pauses
from cloud.pacing import Pacing
from cloud.scheduler import Scheduler
from cloud.status import ServerStatus
from cloud.tls import ServerTls
from cloud.tokens import TokenStore
from lambda_split import __version__
from lambda_split.counting import counted
from lambda_split.errors import InternalError
from lambda_split.wire.messages import MAX_MESSAGE_BYTES

__all__ = ["listen", "serve"]

_logger = logging.getLogger(__name__)
_TLS_RECORD = b"\x16"  # the first byte of a TLS handshake, and of no HTTP request
# Those who wait to be accepted do so in the kernel: it must not turn them away meanwhile.
_BACKLOG = 1024
_NO_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 19\r\n\r\n"
    b"no TLS on this port"
)


@contextlib.asynccontextmanager
async def serve(
    model: ModelKind,
    listener: socket.socket,
    *,
    limits: Limits | None = None,
    pacing: Pacing | None = None,
    waiting: Waiting | None = None,
    tokens: TokenStore | None = None,
    tls: ServerTls | None = None,
    metrics: Metrics | None = None,
    status: ServerStatus | None = None,
    on_fault: Callable[[InternalError], None] | None = None,
) -> AsyncIterator[str]:
    """Serve a model inside an ``async with`` block.

    Leaving the block refuses newcomers, lets open sessions go on for ``limits.linger_s``, answers
    what is under way, tells them :class:`~lambda_split.errors.ServerDraining` and ends within a few
    seconds.

    Args:
        model: Its engine is run by a thread of its own.
        listener: A bound socket; taken over, and closed at the end.
        limits: What one connection may ask; the defaults where None.
        pacing: How steps are filled; the defaults where None.
        waiting: How much may wait; the defaults where None.
        tokens: One of these must stand in the upgrade request; None lets everyone in.
        tls: The server's certificate; None serves plain ``ws://``.
        metrics: Counts what happens; some of its own where None.
        status: Where others see whether it is alive and ready; one of its own where None.
        on_fault: Called in the event loop when the engine's thread has died of a fault: nothing can
            be served any more, so leave the block.

    Yields:
        The URL to connect to.
    """
    limits = limits or Limits()
    metrics, status = metrics or Metrics(), status or ServerStatus()
    scheduler = Scheduler(model.engine, pacing=pacing, waiting=waiting, metrics=metrics)
    service = Service(model, scheduler, limits, status, metrics)
    newcomers = Newcomers(limits.max_newcomers)
    gate = Gate(
        newcomers,
        max_connections=limits.max_connections,
        tokens=tokens,
        status=status,
        metrics=metrics,
    )
    url = url_of(listener, tls=tls is not None)

    async def handle(connection: ServerConnection) -> None:
        with gate.admit(connection) as guest:
            await Connection(connection, service, guest).run()

    server = await listen(handle, listener, gate.check, newcomers, limits=limits, tls=tls)
    if on_fault is not None:
        fault = asyncio.wrap_future(scheduler.fault)
        fault.add_done_callback(lambda done: on_fault(done.result()))
    scheduler.start()
    status.started(lambda: scheduler.alive)
    with gate.watching_tokens():  # to the end: sessions may go on for long
        try:
            yield url
        finally:
            await _stop(server, service)


async def listen(
    handle: Callable[[ServerConnection], Awaitable[None]],
    listener: socket.socket,
    check: Callable[[ServerConnection, Request], Response | None],
    newcomers: Newcomers,
    *,
    limits: Limits,
    tls: ServerTls | None,
) -> Server:
    """Begin to accept devices.

    Args:
        handle: Serves a connection after the upgrade.
        listener: A bound socket; taken over.
        check: Decides about a request before the upgrade.
        newcomers: Where connections are counted.
        limits: Times and bounds.
        tls: None for plain ``ws://``.

    Raises:
        AddressUnavailable: somebody else has begun to listen there since it was bound.
    """
    # The library's log of details has frames and headers in it: hidden states and tokens.
    library_logger = logging.getLogger(f"{__name__}.websockets")
    library_logger.setLevel(logging.WARNING)
    ignore_pauses(asyncio.get_running_loop())
    with listening(listener):
        return await serve_websockets(
            handle,
            backlog=_BACKLOG,
            sock=CountingListener(listener, newcomers, AcceptPace(limits.newcomers_per_s)),
            process_request=check,
            create_connection=_PlainConnection if tls is None else GuardedConnection,
            compression=None,  # hidden states don't deflate, and it costs memory per connection
            max_size=MAX_MESSAGE_BYTES,  # a hello; an accepted session may send whole chunks
            max_queue=2,  # beyond what a device may have in flight, read little ahead
            open_timeout=limits.handshake_s,
            close_timeout=limits.goodbye_s,
            ping_interval=limits.ping_s,  # a device that vanished without a word is noticed
            ping_timeout=limits.ping_s,
            server_header=f"lambda-split/{__version__}",
            logger=library_logger,
            **_tls_settings(tls, limits),
        )


async def _stop(server: Server, service: Service) -> None:
    _logger.info("stopping: %s open", counted(len(server.connections), "session"))
    limits = service.limits
    service.status.leaving.set()
    patience = limits.drain_s + 2 * limits.goodbye_s
    try:
        try:
            await _linger(server, service)
        finally:
            server.close(close_connections=False)
            service.draining.set()
        async with asyncio.timeout(patience):
            await server.wait_closed()
    except TimeoutError:
        _logger.warning("stopping: not all connections closed in time")
    finally:  # also where this is canceled: the process cannot end before the engine's thread
        await service.scheduler.stop(patience_s=0.5)


async def _linger(server: Server, service: Service) -> None:
    """Let open sessions go on for a while; returns when all have ended."""
    if service.limits.linger_s <= 0 or not service.scheduler.alive:
        return
    # Still accepting, so that newcomers and health checks are told instead of cut off.
    ends = [asyncio.ensure_future(each.wait_closed()) for each in server.connections]
    try:
        if ends:
            await asyncio.wait(ends, timeout=service.limits.linger_s)
    finally:
        for end in ends:
            end.cancel()


def _tls_settings(tls: ServerTls | None, limits: Limits) -> dict[str, Any]:
    if tls is None:
        return {}
    # A time for the whole handshake, not for each of its messages.
    return {
        "ssl": tls.context,
        "ssl_handshake_timeout": limits.handshake_s,
        "ssl_shutdown_timeout": limits.goodbye_s,
    }


class _PlainConnection(GuardedConnection):
    """Answers a device that speaks TLS where there is none, instead of waiting for a line end."""

    def data_received(self, data: bytes) -> None:
        if self.request is None and data[:1] == _TLS_RECORD:
            self.transport.write(_NO_TLS)
            self.transport.close()
            return
        super().data_received(data)

"""The listener for Prometheus and supervisors: ``/metrics``, ``/healthz``, ``/readyz``, no more.

It is another one than the devices' and belongs on an address that only the operator reaches: it
asks for no token.
"""

from __future__ import annotations

import contextlib
import http
import logging
import socket
from collections.abc import AsyncIterator
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.http11 import Request, Response

from cloud.listener import listening
from cloud.metrics import Metrics
from cloud.status import ServerStatus, status_page

__all__ = ["serve_metrics"]

_TIMEOUT_S: Final = 5
_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@contextlib.asynccontextmanager
async def serve_metrics(
    listener: socket.socket, metrics: Metrics, status: ServerStatus
) -> AsyncIterator[int]:
    """Answer GET requests inside an ``async with`` block.

    The library for the devices' connections reads the requests as well: it bounds their lines,
    their number and the time for them, takes no bodies, and closes after the answer. Every request
    is answered before it could become a WebSocket.

    Args:
        listener: A bound socket; closed at the end.
        metrics: For ``/metrics``.
        status: For the other two.

    Yields:
        The port.

    Raises:
        AddressUnavailable: somebody else has begun to listen there since it was bound.
    """

    def answer(connection: ServerConnection, request: Request) -> Response:
        # Versions of the library that do not say the method take nothing but GET.
        if getattr(request, "method", "GET") != "GET":
            response = connection.respond(http.HTTPStatus.METHOD_NOT_ALLOWED, "GET only\n")
            response.headers["Allow"] = "GET"
            return response
        page = status_page(request.path, status)
        if page is not None:
            return connection.respond(*page)
        if request.path.partition("?")[0] != "/metrics":
            return connection.respond(http.HTTPStatus.NOT_FOUND, "there is /metrics\n")
        response = connection.respond(http.HTTPStatus.OK, metrics.render().decode())
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = _CONTENT_TYPE
        return response

    # Whatever is sent to it instead of a request is not worth a line in the log.
    logger = logging.getLogger(f"{__name__}.websockets")
    logger.setLevel(logging.CRITICAL)
    port: int = listener.getsockname()[1]
    with listening(listener):
        server = await serve_websockets(
            _never,
            sock=listener,
            process_request=answer,
            open_timeout=_TIMEOUT_S,
            close_timeout=_TIMEOUT_S,
            logger=logger,
        )
    async with server:
        yield port


async def _never(_connection: ServerConnection) -> None:
    raise AssertionError("every request has been answered before")

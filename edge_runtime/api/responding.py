"""Reading requests and sending answers: JSON, event streams, and clients that go away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge_runtime.api.failures import Failure, failure_of
from edge_runtime.api.parameters import parse_object
from lambda_split.errors import BodyTooLarge, BodyTooSlow, BodyTypeUnsupported

__all__ = [
    "BODY_TIMEOUT_S",
    "MAX_BODY_BYTES",
    "ClientGone",
    "EventStream",
    "failure_response",
    "json_response",
    "read_object",
    "while_connected",
]

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
BODY_TIMEOUT_S: Final = 30.0

Result = TypeVar("Result")


class ClientGone(Exception):
    """The client closed its connection before it was answered."""


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises:
        BodyTypeUnsupported: it is not said to be JSON (which web pages could send unasked).
        BodyTooLarge: it is larger than :data:`MAX_BODY_BYTES`.
        BodyTooSlow: it does not come in time.
        BodyInvalid: it is no JSON object.
        ClientGone: the client went away before all of it was there.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BodyTypeUnsupported
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    raise BodyTooLarge(MAX_BODY_BYTES)
    except TimeoutError as error:
        raise BodyTooSlow(BODY_TIMEOUT_S) from error
    except ClientDisconnect as error:
        raise ClientGone from error
    return parse_object(bytes(body))


def json_response(content: msgspec.Struct) -> Response:
    """A success."""
    return Response(msgspec.json.encode(content), media_type="application/json")


def failure_response(failure: Failure) -> Response:
    """An error in OpenAI's form."""
    headers = {}
    if failure.retry_after_s is not None:
        headers["Retry-After"] = str(failure.retry_after_s)
    if failure.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(
        msgspec.json.encode(failure.reply),
        failure.status,
        headers,
        media_type="application/json",
    )


async def while_connected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Do something, and leave off where the client goes away meanwhile.

    Args:
        receive: Of the request, whose body was read.
        work: What to do; cancelled where nobody waits for it any more.

    Raises:
        ClientGone: it has gone.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events, as OpenAI's clients read them: JSON each, ``[DONE]`` at the end.

    Where it fails after it began, the last event is an error in OpenAI's form, without ``[DONE]``.
    Where the client goes away, the iteration is ended.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[msgspec.Struct, None], source: AsyncGenerator[Any, None]
    ) -> None:
        """Prepare a response.

        Args:
            events: What to send.
            source: What they are made from; closed at the end, also where none was sent.
        """
        super().__init__(headers={"Cache-Control": "no-store"})
        # A stream has no length that could be told before.
        self.raw_headers = [item for item in self.raw_headers if item[0] != b"content-length"]
        self._events = events
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it."""
        del scope
        async with contextlib.aclosing(self._source), contextlib.aclosing(self._events):
            with contextlib.suppress(ClientGone):
                await while_connected(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        last = b"data: [DONE]\n\n"
        try:
            async for event in self._events:
                await _send_body(send, _event(event), more=True)
        except Exception as error:  # noqa: BLE001  # any: the status is gone, the client must know
            last = _event(failure_of(error).reply)
        await _send_body(send, last, more=False)


def _event(content: msgspec.Struct) -> bytes:
    return b"data: " + msgspec.json.encode(content) + b"\n\n"


async def _send_body(send: Send, data: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})

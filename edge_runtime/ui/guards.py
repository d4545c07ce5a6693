"""What stands before the page: only what it needs, only from here, for who knows the password."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Awaitable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["PageGuard", "PasswordGuard"]

# What the page is made of and how it is spoken with. Gradio has more routes: some store what is
# uploaded, some fetch from other hosts, and the page needs none of them.
_PATHS: Final = (
    "/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/manifest.json",
    "/gradio_api/queue/join",
    "/gradio_api/queue/data",
    "/gradio_api/startup-events",
    "/gradio_api/cancel",
    "/gradio_api/reset",
    "/gradio_api/info",
    "/gradio_api/app_id",
)
_PREFIXES: Final = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/")

# The browser itself refuses what the page did not get from here: an answer with a picture's address
# in it must not make it ask that address.
_HEADERS: Final = {
    "content-security-policy": "; ".join(
        (
            "default-src 'self'",
            "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'none'",  # the page has no form; an answer may have one
            "frame-ancestors 'none'",
        )
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class PageGuard:
    """Lets only through what the page needs, and tells the browser to stay on this host.

    Attributes:
        ending: Set when the server is told to stop: a browser keeps requests open for as long as
            the page is, and they would hold the end up.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.ending = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 404."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not _needed(scope["path"]):
            await PlainTextResponse("No such page", 404)(scope, receive, send)
            return
        answering = False

        async def send_with_headers(message: Message) -> None:
            nonlocal answering
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            answering = message["type"] == "http.response.start" or message.get("more_body", False)
            await send(message)

        async def receive_or_end() -> Message:
            return await _first(receive(), self.ending)

        await self._app(scope, receive_or_end, send_with_headers)
        if answering and self.ending.is_set():  # broken off
            await send({"type": "http.response.body", "body": b""})


async def _first(message: Awaitable[Message], ending: asyncio.Event) -> Message:
    """What comes from the client, or that it has gone where the server ends before."""
    coming = asyncio.ensure_future(message)
    ended = asyncio.ensure_future(ending.wait())
    try:
        await asyncio.wait({coming, ended}, return_when=asyncio.FIRST_COMPLETED)
        return coming.result() if coming.done() else {"type": "http.disconnect"}
    finally:
        coming.cancel()
        ended.cancel()


def _needed(path: str) -> bool:
    return path in _PATHS or path.startswith(_PREFIXES)


class PasswordGuard:
    """Refuses requests without the password (HTTP Basic, RFC 7617); any user name will do."""

    def __init__(self, app: ASGIApp, password: str | None) -> None:
        self._app = app
        self._password = None if password is None else password.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401."""
        if scope["type"] == "http" and self._password is not None:
            given = _password_in(Headers(scope=scope).get("authorization", ""))
            if not hmac.compare_digest(given, self._password):
                challenge = {"www-authenticate": 'Basic realm="lambda-split", charset="UTF-8"'}
                await PlainTextResponse("The password is wrong or missing", 401, challenge)(
                    scope, receive, send
                )
                return
        await self._app(scope, receive, send)


def _password_in(header: str) -> bytes:
    """The password of a Basic header; empty where there is none."""
    scheme, _, credentials = header.partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""

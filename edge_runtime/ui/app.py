"""The application: the page, and what stands before it."""

from __future__ import annotations

import base64
import contextlib
import hmac
import pathlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import gradio as gr
from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_runtime.api.guard import HostGuard
from edge_runtime.sessions.pool import PoolLimits
from edge_runtime.sessions.served import (
    PictureBundle,
    ServedModels,
    ServedPictures,
    ServedText,
    TextBundle,
)
from edge_runtime.ui.page import build_page, make_theme
from lambda_split.errors import UsageError

__all__ = ["PageGuard", "PasswordGuard", "make_page_app"]

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
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def make_page_app(
    sources: Sequence[TextBundle | PictureBundle],
    limits: PoolLimits,
    *,
    codec: str,
    hosts: Sequence[str] = (),
    password: str | None = None,
) -> ASGIApp:
    """The ASGI application.

    Args:
        sources: What is served: at most one language model and one pipeline.
        limits: How many answers at a time.
        codec: How hidden states cross the wire, to be told.
        hosts: Names that the server goes by, beside those of loopback.
        password: What the browser asks a person for; None asks for nothing.

    Raises:
        UsageError: two of a kind.
    """
    models = ServedModels(sources, limits)
    texts = [one for one in models.all() if isinstance(one, ServedText)]
    pictures = [one for one in models.all() if isinstance(one, ServedPictures)]
    if len(texts) > 1 or len(pictures) > 1:
        raise UsageError("the page has a place for one language model and one that makes pictures")

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await models.close()

    page = build_page(next(iter(texts), None), next(iter(pictures), None), codec=codec)
    app = gr.mount_gradio_app(
        FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,
        max_file_size=1,
        theme=make_theme(),
        css_paths=[pathlib.Path(__file__).with_name("page.css")],
    )
    return HostGuard(PasswordGuard(PageGuard(app), password), hosts, (), own_origin=True)


class PageGuard:
    """Lets only through what the page needs, and tells the browser to stay on this host."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 404."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not _needed(scope["path"]):
            await PlainTextResponse("No such page", 404)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, send_with_headers)


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

"""The application: the page, drawn with Gradio, behind its guards."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import gradio as gr
from fastapi import FastAPI
from starlette.types import ASGIApp

from edge_runtime.api.guard import HostGuard
from edge_runtime.sessions.pool import PoolLimits
from edge_runtime.sessions.served import (
    PictureBundle,
    ServedModels,
    ServedPictures,
    ServedText,
    TextBundle,
)
from edge_runtime.ui.guards import PageGuard, PasswordGuard
from edge_runtime.ui.page import build_page, make_theme
from lambda_split.errors import UsageError

__all__ = ["PageApp", "make_page_app"]


@dataclass(frozen=True)
class PageApp:
    """What is served.

    Attributes:
        app: The ASGI application.
        end: To be called when the server is told to stop.
    """

    app: ASGIApp
    end: Callable[[], None]


def make_page_app(
    sources: Sequence[TextBundle | PictureBundle],
    limits: PoolLimits,
    *,
    codec: str,
    hosts: Sequence[str] = (),
    password: str | None = None,
) -> PageApp:
    """The page's application.

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
    guard = PageGuard(app)
    return PageApp(
        HostGuard(PasswordGuard(guard, password), hosts, (), own_origin=True), guard.ending.set
    )

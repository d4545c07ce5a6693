"""The application: routes, and what stands before them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_runtime.api.chat import plan_chat
from edge_runtime.api.completions import plan_completion
from edge_runtime.api.description import describe
from edge_runtime.api.failures import Failure, failure_of
from edge_runtime.api.guard import Access, HostGuard, KeyGuard
from edge_runtime.api.pictures import plan_pictures
from edge_runtime.api.replies import (
    ErrorBody,
    ErrorReply,
    Health,
    ModelCard,
    ModelList,
    ModelState,
)
from edge_runtime.api.responding import (
    ClientGone,
    failure_response,
    json_response,
    read_object,
    while_connected,
)
from edge_runtime.sessions.pool import PoolLimits
from edge_runtime.sessions.served import PictureBundle, ServedModels, TextBundle

__all__ = ["make_app"]

_CLIENT_CLOSED = 499  # nobody reads it; nginx's word for it

Endpoint = Callable[[Request], Awaitable[Response]]


class _Answer(Protocol):
    async def respond(self, request: Request) -> Response: ...


Plan = Callable[[dict[str, Any], ServedModels], Coroutine[Any, Any, _Answer]]


def make_app(
    sources: Sequence[TextBundle | PictureBundle], limits: PoolLimits, access: Access
) -> Starlette:
    """The ASGI application.

    Args:
        sources: What is served.
        limits: How many requests at a time.
        access: Who may use it.

    Raises:
        UsageError: two models of one name.
    """
    models = ServedModels(sources, limits)
    routes = [
        Route("/health", _answered(_health(models)), methods=["GET"]),
        Route("/openapi.json", _answered(_openapi(models)), methods=["GET"]),
        Route("/v1/models", _answered(_list(models)), methods=["GET"]),
        Route("/v1/models/{model:path}", _answered(_one(models)), methods=["GET"]),
    ]
    # What was wrong with a text's prompt is found out late; of pictures it may be anything.
    plans: dict[str, tuple[Plan, str | None]] = {
        "/v1/chat/completions": (plan_chat, "messages"),
        "/v1/completions": (plan_completion, "prompt"),
        "/v1/images/generations": (plan_pictures, None),
    }
    routes += [
        Route(path, _answered(_generation(models, plan), prompt), methods=["POST"])
        for path, (plan, prompt) in plans.items()
    ]

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await models.close()

    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[
            Middleware(HostGuard, access.hosts, access.origins),
            *_cross_origin(access.origins),
            Middleware(KeyGuard, access.api_key),
        ],
        exception_handlers={HTTPException: _on_http_error},
    )


def _cross_origin(origins: Sequence[str]) -> list[Middleware]:
    """What browsers ask before a page of another origin may read an answer."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # OpenAI's client sends several of its own
        )
    ]


def _answered(endpoint: Endpoint, prompt_parameter: str | None = None) -> Endpoint:
    """An endpoint whose errors are answers, too.

    Starlette's own handler would raise them again after answering, to be logged with their texts,
    which may quote a prompt.
    """

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientGone:
            return Response(status_code=_CLIENT_CLOSED)
        except HTTPException:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, the client gets an answer
            return failure_response(failure_of(error, prompt_parameter))

    return answer


def _generation(models: ServedModels, plan: Plan) -> Endpoint:
    async def generate(request: Request) -> Response:
        fields = await read_object(request)
        answer = await while_connected(request.receive, plan(fields, models))
        return await answer.respond(request)

    return generate


def _health(models: ServedModels) -> Endpoint:
    async def health(_request: Request) -> Response:
        states = [
            ModelState(
                id=one.id,
                sessions=one.pool.open,
                busy=one.pool.busy,
                waiting=one.pool.waiting,
                limit=one.pool.limit,
            )
            for one in models.all()
        ]
        return json_response(Health(models=states))

    return health


def _openapi(models: ServedModels) -> Endpoint:
    description = msgspec.json.encode(describe(models))

    async def openapi(_request: Request) -> Response:
        return Response(description, media_type="application/json")

    return openapi


def _list(models: ServedModels) -> Endpoint:
    async def list_models(_request: Request) -> Response:
        cards = [ModelCard(id=one.id, created=models.created) for one in models.all()]
        return json_response(ModelList(data=cards))

    return list_models


def _one(models: ServedModels) -> Endpoint:
    async def one_model(request: Request) -> Response:
        found = models.any(request.path_params["model"])
        return json_response(ModelCard(id=found.id, created=models.created))

    return one_model


async def _on_http_error(_request: Request, error: Exception) -> Response:
    """No such route, or another method: in OpenAI's form as well."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    sentence = "No such route" if status == 404 else "This route does not know that method"
    body = ErrorBody(message=sentence, type="invalid_request_error", code="unknown_url")
    response = failure_response(Failure(status, ErrorReply(body)))
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    return response

"""``GET /openapi.json``: what the server takes and gives, from the structures that check it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

import lambda_split
from edge_runtime.api.parameters import INERT, Neutral
from edge_runtime.api.replies import (
    ChatChunk,
    ChatCompletion,
    Completion,
    ErrorReply,
    Health,
    Images,
    ModelCard,
    ModelList,
)
from edge_runtime.api.requests import (
    CHAT_NEUTRAL,
    COMPLETION_NEUTRAL,
    IMAGE_NEUTRAL,
    MESSAGE_NEUTRAL,
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    ImageRequest,
)
from edge_runtime.sessions.served import ServedModels, ServedPictures, ServedText

__all__ = ["describe"]

Json = dict[str, Any]

_ERRORS: Final = {
    400: "A parameter is wrong, or not supported",
    401: "The API key is wrong",
    403: "Another host's name, or a web page that may not",
    404: "No such model",
    408: "The body did not come in time",
    413: "The body is too large",
    415: "The body is not said to be JSON",
    429: "All sessions are in use: try again later",
    500: "The device failed",
    502: "The trunk does not serve this bundle, or not to this device",
    503: "No session on the trunk can be had, or too many connections are open",
}
_NEUTRAL: Final[Mapping[str, Neutral]] = {
    "ChatRequest": CHAT_NEUTRAL,
    "ChatMessage": MESSAGE_NEUTRAL,
    "CompletionRequest": COMPLETION_NEUTRAL,
    "ImageRequest": IMAGE_NEUTRAL,
}

# Of each event, for which OpenAPI 3.1 has no words of its own; the last one's data is "[DONE]".
_EVENT: Final = {
    "type": "object",
    "properties": {"data": {"type": "string", "contentMediaType": "application/json"}},
    "required": ["data"],
}


def describe(models: ServedModels) -> Json:
    """The OpenAPI 3.1 description of a server.

    Args:
        models: What it serves: requests name one of them.
    """
    text, pictures = models.names(ServedText), models.names(ServedPictures)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Λ-Split",
            "version": lambda_split.__version__,
            "description": "OpenAI's API on this device: prompts and answers stay here.",
        },
        "security": [{}, {"key": []}],
        "paths": {
            "/health": {"get": _get("How busy the server is", Health, 403, 503)},
            "/openapi.json": {
                "get": {
                    "summary": "This description",
                    "security": [{}],
                    "responses": {"200": _json("It", {"type": "object"}), **_errors(403, 503)},
                }
            },
            "/v1/models": {"get": _get("The models that are served", ModelList, 401, 403, 503)},
            "/v1/models/{model}": {
                "get": {
                    **_get("One of them", ModelCard, 401, 403, 404, 503),
                    "parameters": [
                        {
                            "name": "model",
                            "in": "path",
                            "required": True,
                            "schema": {"type": "string", "minLength": 1},
                        }
                    ],
                }
            },
            "/v1/chat/completions": {
                "post": _post("Go on with a conversation", ChatRequest, ChatCompletion)
            },
            "/v1/completions": {"post": _post("Continue texts", CompletionRequest, Completion)},
            "/v1/images/generations": {
                "post": _post("Make pictures", ImageRequest, Images, streams=False)
            },
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(text, pictures),
        },
    }


def _schemas(text: tuple[str, ...], pictures: tuple[str, ...]) -> Json:
    _, schemas = msgspec.json.schema_components(
        [
            *(ChatRequest, ChatMessage, CompletionRequest, ImageRequest),
            *(ChatCompletion, ChatChunk, Completion, Images),
            *(ModelCard, ModelList, Health, ErrorReply),
        ],
        ref_template="#/components/schemas/{name}",
    )
    for name, neutral in _NEUTRAL.items():
        properties = schemas[name]["properties"]
        properties.update({field: {"enum": list(values)} for field, values in neutral.items()})
    served = {"ChatRequest": text, "CompletionRequest": text, "ImageRequest": pictures}
    for name, models in served.items():
        properties = schemas[name]["properties"]
        properties["model"] = {"type": "string", "enum": list(models)} if models else False
        note = {"description": "Taken, and without influence on the answer"}
        properties.update(dict.fromkeys(INERT, note))
    return schemas


def _get(summary: str, reply: type[msgspec.Struct], *errors: int) -> Json:
    security: Json = {} if 401 in errors else {"security": [{}]}
    return {
        "summary": summary,
        **security,
        "responses": {"200": _json("It", _reference(reply)), **_errors(*errors)},
    }


def _post(
    summary: str,
    request: type[msgspec.Struct],
    reply: type[msgspec.Struct],
    *,
    streams: bool = True,
) -> Json:
    success = _json("The answer; with 'stream', events", _reference(reply))
    if streams:
        success["content"]["text/event-stream"] = {"schema": _EVENT}
    return {
        "summary": summary,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _reference(request)}},
        },
        "responses": {"200": success, **_errors(*_ERRORS)},
    }


def _errors(*statuses: int) -> Json:
    return {str(status): _json(_ERRORS[status], _reference(ErrorReply)) for status in statuses}


def _json(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _reference(kind: type[msgspec.Struct]) -> Json:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}

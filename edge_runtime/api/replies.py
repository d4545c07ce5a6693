"""What the server answers, in the shapes that OpenAI's clients read."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

__all__ = [
    "CachedTokens",
    "ChatChoice",
    "ChatChunk",
    "ChatChunkChoice",
    "ChatCompletion",
    "ChatDelta",
    "ChatLogprobs",
    "ChatReply",
    "Completion",
    "CompletionChoice",
    "CompletionLogprobs",
    "ErrorBody",
    "ErrorReply",
    "Health",
    "ImageData",
    "Images",
    "Likelihood",
    "ModelCard",
    "ModelList",
    "ModelState",
    "TokenLikelihood",
    "Usage",
]

Finish = Literal["stop", "length"]


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, and which parameter is to blame."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(msgspec.Struct, frozen=True):
    """Any answer that is not a success, and the last event of a stream that failed."""

    error: ErrorBody


class CachedTokens(msgspec.Struct, frozen=True):
    """Tokens of the prompt that head, trunk and tail still held."""

    cached_tokens: int


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a request; a prompt counts once, however many choices it has."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class Likelihood(msgspec.Struct, frozen=True, kw_only=True):
    """A token and its log-probability in nats, at least -9999."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLikelihood(Likelihood, frozen=True, kw_only=True):
    """A sampled token, with the most likely ones at its place."""

    top_logprobs: list[Likelihood]


class ChatLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    """Of the tokens whose text is in this message, or in this chunk of it."""

    content: list[TokenLikelihood]
    refusal: None = None


class ChatReply(msgspec.Struct, frozen=True, kw_only=True):
    """What the model said."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class ChatChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One of a chat's answers."""

    index: int
    message: ChatReply
    finish_reason: Finish
    logprobs: ChatLogprobs | None = None


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A chat's answers."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"


class ChatDelta(msgspec.Struct, frozen=True, kw_only=True):
    """What a chunk adds to a message."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What a chunk adds to one of a chat's answers."""

    index: int
    delta: ChatDelta
    finish_reason: Finish | None = None
    logprobs: ChatLogprobs | None = None


class ChatChunk(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a chat's stream; ``usage`` is there where it was asked for."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


class CompletionLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    """Of the tokens whose text is in this choice, or in this chunk of it."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One of a completion's texts, or what a chunk adds to it."""

    index: int
    text: str
    finish_reason: Finish | None
    logprobs: CompletionLogprobs | None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A completion, or one event of its stream."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET
    object: Literal["text_completion"] = "text_completion"


class ImageData(msgspec.Struct, frozen=True):
    """A PNG file."""

    b64_json: str


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """Finished pictures; ``seed`` makes the same ones again."""

    created: int
    data: list[ImageData]
    size: str
    seed: int
    output_format: Literal["png"] = "png"


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is served here."""

    id: str
    created: int
    object: Literal["model"] = "model"
    owned_by: Literal["lambda-split"] = "lambda-split"


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    data: list[ModelCard]
    object: Literal["list"] = "list"


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """How busy a model is.

    Attributes:
        id: The model.
        sessions: Sessions that are open on its trunk.
        busy: Those of them that work on a request.
        waiting: Requests that wait for one.
        limit: The most sessions.
    """

    id: str
    sessions: int
    busy: int
    waiting: int
    limit: int


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The server runs; whether a trunk can be reached is known only when it is asked."""

    models: list[ModelState]
    status: Literal["ok"] = "ok"

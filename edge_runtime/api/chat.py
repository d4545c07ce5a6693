"""``POST /v1/chat/completions``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from edge_runtime.api.generating import Delta
from edge_runtime.api.likelihoods import chat_logprobs
from edge_runtime.api.parameters import parse_request, without_neutral
from edge_runtime.api.planning import check_stream_options, text_plan
from edge_runtime.api.replies import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatReply,
    Usage,
)
from edge_runtime.api.requests import CHAT_NEUTRAL, MESSAGE_NEUTRAL, ChatMessage, ChatRequest
from edge_runtime.api.text_answer import TextAnswer
from edge_runtime.chat import Message
from edge_runtime.sessions.served import ServedModels
from lambda_split.errors import ParameterInvalid

__all__ = ["ChatAnswer", "plan_chat"]


async def plan_chat(fields: dict[str, Any], models: ServedModels) -> ChatAnswer:
    """Check a request and turn its messages into tokens.

    Args:
        fields: Of the body.
        models: What is served.

    Raises:
        ApiError: the request is not one that can be answered.
        UsageError: the model's template does not take these messages, or they are too long.
        BundleError: the tokenizer fails.
    """
    request = parse_request(_with_plain_messages(fields), ChatRequest, CHAT_NEUTRAL)
    served = models.text(request.model)
    with_usage = check_stream_options(request)
    messages = [_message(item) for item in request.messages]
    ids = await asyncio.to_thread(served.encode, messages)
    plan = text_plan(
        request,
        (ids,),
        served,
        max_new_tokens=_budget(request),
        top_logprobs=_alternatives(request),
    )
    return ChatAnswer(served, plan, streams=bool(request.stream), with_usage=with_usage)


def _with_plain_messages(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, with messages that hold nothing but who says what.

    A client sends an assistant's message as it came, with all of its fields.
    """
    messages = fields.get("messages")
    if not isinstance(messages, list):
        return fields
    plain = [
        without_neutral(item, MESSAGE_NEUTRAL, f"messages[{place}].")
        if isinstance(item, dict)
        else item
        for place, item in enumerate(messages)
    ]
    return {**fields, "messages": plain}


def _message(item: ChatMessage) -> Message:
    # Models' templates know no developer: it is OpenAI's later word for the system.
    role = "system" if item.role == "developer" else item.role
    if isinstance(item.content, str):
        return Message(role, item.content)
    return Message(role, "\n".join(part.text for part in item.content))


def _budget(request: ChatRequest) -> int | None:
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise ParameterInvalid("max_tokens", "give it or 'max_completion_tokens', not both")
    return request.max_completion_tokens or request.max_tokens


def _alternatives(request: ChatRequest) -> int | None:
    if request.top_logprobs is not None and not request.logprobs:
        raise ParameterInvalid("top_logprobs", "it is for requests with 'logprobs': true")
    return (request.top_logprobs or 0) if request.logprobs else None


class ChatAnswer(TextAnswer):
    """A chat's answer in the making."""

    prefix = "chatcmpl"

    def whole(self, choices: Sequence[Sequence[Delta]], usage: Usage) -> ChatCompletion:
        """All of it at once."""
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self.served.id,
            system_fingerprint=self.served.fingerprint,
            choices=[
                ChatChoice(
                    index=index,
                    message=ChatReply(content="".join(delta.text for delta in deltas)),
                    finish_reason=deltas[-1].finish_reason or "stop",
                    logprobs=self._logprobs(deltas),
                )
                for index, deltas in enumerate(choices)
            ],
            usage=usage,
        )

    async def events(
        self, deltas: AsyncGenerator[Delta, None]
    ) -> AsyncGenerator[msgspec.Struct, None]:
        """One chunk after the other: each choice begins with its role."""
        last = -1
        async for delta in deltas:
            if delta.index != last:
                last = delta.index
                yield self._chunk(last, ChatDelta(role="assistant", content=""))
            if delta.text or delta.tokens:
                yield self._chunk(
                    last, ChatDelta(content=delta.text), logprobs=self._logprobs([delta])
                )
            if delta.finish_reason is not None:
                yield self._chunk(last, ChatDelta(), finish_reason=delta.finish_reason)

    def usage_event(self, usage: Usage) -> ChatChunk:
        """The last chunk, where the usage was asked for."""
        return msgspec.structs.replace(self.bare(ChatChunk), usage=usage)

    def _chunk(self, index: int, delta: ChatDelta, **facts: Any) -> ChatChunk:  # noqa: ANN401  # the choice's other fields
        choice = ChatChunkChoice(index=index, delta=delta, **facts)
        return msgspec.structs.replace(self.bare(ChatChunk), choices=[choice])

    def _logprobs(self, deltas: Sequence[Delta]) -> ChatLogprobs | None:
        tokens = self.told(deltas)
        return None if tokens is None else chat_logprobs(tokens, self.served.tokenizer)

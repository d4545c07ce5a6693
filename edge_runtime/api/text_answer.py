"""An answer of text, whole or streamed, in either of OpenAI's forms."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import ClassVar, TypeVar

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from edge_runtime.api.generating import Delta, SampledToken, TextPlan, deltas_of, usage_of
from edge_runtime.api.replies import ChatChunk, Completion, Usage
from edge_runtime.api.responding import EventStream, json_response, while_connected
from edge_runtime.sessions.served import ServedText
from edge_runtime.stats import GenerationStats

__all__ = ["TextAnswer"]

Reply = TypeVar("Reply", ChatChunk, Completion)


class TextAnswer(abc.ABC):
    """What a plan's texts are put into.

    Attributes:
        prefix: What the ids of its kind begin with.
        served: The model.
        plan: What is generated.
        streams: Whether it goes out as it is made.
        with_usage: Whether a stream ends with the usage.
    """

    prefix: ClassVar[str]

    def __init__(
        self, served: ServedText, plan: TextPlan, *, streams: bool, with_usage: bool
    ) -> None:
        self._id = f"{self.prefix}-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self.served = served
        self.plan = plan
        self.streams = streams
        self.with_usage = with_usage

    @abc.abstractmethod
    def whole(self, choices: Sequence[Sequence[Delta]], usage: Usage) -> msgspec.Struct:
        """All of it at once.

        Args:
            choices: The deltas of each choice, the last one with its end.
            usage: The request's tokens.
        """

    @abc.abstractmethod
    def events(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[msgspec.Struct, None]:
        """The stream's events but the last."""

    @abc.abstractmethod
    def usage_event(self, usage: Usage) -> msgspec.Struct:
        """The stream's last event, where the usage was asked for."""

    def bare(self, kind: type[Reply]) -> Reply:
        """An answer without choices, or an event of one; without usage or room for it, if asked."""
        return kind(
            id=self._id,
            created=self._created,
            model=self.served.id,
            system_fingerprint=self.served.fingerprint,
            choices=[],
            usage=None if self.with_usage else UNSET,
        )

    def told(self, deltas: Sequence[Delta]) -> list[SampledToken] | None:
        """The tokens whose log-probabilities are told; None where nobody asked for them."""
        if self.plan.top_logprobs is None:
            return None
        return [token for delta in deltas for token in delta.tokens]

    async def respond(self, request: Request) -> Response:
        """Generate, and answer.

        Nothing is sent before there is something to say, so that what goes wrong up to then has a
        status of its own.

        Raises:
            ClientGone: nobody waits for it any more.
            LambdaSplitError: it cannot be generated.
        """
        deltas = deltas_of(self.plan, self.served.pool)
        if not self.streams:
            async with contextlib.aclosing(deltas):
                return await while_connected(request.receive, self._whole(deltas))
        try:
            first = await while_connected(request.receive, anext(deltas))
        except BaseException:
            await deltas.aclose()
            raise
        return EventStream(self._stream(first, deltas), deltas)

    async def _whole(self, deltas: AsyncGenerator[Delta, None]) -> Response:
        choices: list[list[Delta]] = [[] for _ in range(len(self.plan.prompts) * self.plan.choices)]
        async for delta in deltas:
            choices[delta.index].append(delta)
        stats = [one[-1].stats or GenerationStats() for one in choices]
        # Log-probabilities of many tokens take seconds to spell out: others go on meanwhile.
        return await asyncio.to_thread(
            lambda: json_response(self.whole(choices, usage_of(self.plan, stats)))
        )

    async def _stream(
        self, first: Delta, rest: AsyncGenerator[Delta, None]
    ) -> AsyncGenerator[msgspec.Struct, None]:
        stats: list[GenerationStats] = []

        async def noted() -> AsyncGenerator[Delta, None]:
            delta = first
            while True:
                if delta.stats is not None:
                    stats.append(delta.stats)
                yield delta
                try:
                    delta = await anext(rest)
                except StopAsyncIteration:
                    return

        async for event in self.events(noted()):
            yield event
        if self.with_usage:
            yield self.usage_event(usage_of(self.plan, stats))

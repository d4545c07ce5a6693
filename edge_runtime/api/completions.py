"""``POST /v1/completions``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from edge_runtime.api.generating import Delta
from edge_runtime.api.likelihoods import completion_logprobs
from edge_runtime.api.parameters import parse_request
from edge_runtime.api.planning import check_stream_options, text_plan
from edge_runtime.api.replies import Completion, CompletionChoice, CompletionLogprobs, Usage
from edge_runtime.api.requests import COMPLETION_NEUTRAL, CompletionRequest
from edge_runtime.api.text_answer import TextAnswer
from edge_runtime.prompt import Prompt
from edge_runtime.sessions.served import ServedModels
from lambda_split.errors import ParameterInvalid

__all__ = ["CompletionAnswer", "plan_completion"]

_DEFAULT_MAX_TOKENS = 16  # OpenAI's


async def plan_completion(fields: dict[str, Any], models: ServedModels) -> CompletionAnswer:
    """Check a request and turn its prompts into tokens.

    Args:
        fields: Of the body.
        models: What is served.

    Raises:
        ApiError: the request is not one that can be answered.
        UsageError: a prompt is empty, too long or has tokens that the model does not know.
        BundleError: the tokenizer fails.
    """
    request = parse_request(fields, CompletionRequest, COMPLETION_NEUTRAL)
    served = models.text(request.model)
    with_usage = check_stream_options(request)
    prompts = _prompts(request)
    ids = await asyncio.to_thread(lambda: tuple(served.encode(prompt) for prompt in prompts))
    plan = text_plan(
        request,
        ids,
        served,
        max_new_tokens=request.max_tokens or _DEFAULT_MAX_TOKENS,
        top_logprobs=request.logprobs,
    )
    return CompletionAnswer(served, plan, streams=bool(request.stream), with_usage=with_usage)


def _prompts(request: CompletionRequest) -> list[Prompt]:
    prompt = request.prompt
    if isinstance(prompt, str):
        return [prompt]
    kinds = {type(item) for item in prompt}
    if len(kinds) > 1:
        raise ParameterInvalid("prompt", "its items must be of one kind")
    if kinds == {int}:
        return [[item for item in prompt if isinstance(item, int)]]
    return [item for item in prompt if not isinstance(item, int)]


class CompletionAnswer(TextAnswer):
    """A completion in the making."""

    prefix = "cmpl"

    def whole(self, choices: Sequence[Sequence[Delta]], usage: Usage) -> Completion:
        """All of it at once."""
        listed = [
            CompletionChoice(
                index=index,
                text="".join(delta.text for delta in deltas),
                finish_reason=deltas[-1].finish_reason,
                logprobs=self._logprobs(deltas),
            )
            for index, deltas in enumerate(choices)
        ]
        return msgspec.structs.replace(self.bare(Completion), choices=listed, usage=usage)

    async def events(
        self, deltas: AsyncGenerator[Delta, None]
    ) -> AsyncGenerator[msgspec.Struct, None]:
        """One chunk after the other."""
        async for delta in deltas:
            choice = CompletionChoice(
                index=delta.index,
                text=delta.text,
                finish_reason=delta.finish_reason,
                logprobs=self._logprobs([delta]),
            )
            yield msgspec.structs.replace(self.bare(Completion), choices=[choice])

    def usage_event(self, usage: Usage) -> Completion:
        """The last chunk, where the usage was asked for."""
        return msgspec.structs.replace(self.bare(Completion), usage=usage)

    def _logprobs(self, deltas: Sequence[Delta]) -> CompletionLogprobs | None:
        tokens = self.told(deltas)
        return None if tokens is None else completion_logprobs(tokens, self.served.tokenizer)

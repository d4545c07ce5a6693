"""What chats and completions ask for alike, as a plan."""

from __future__ import annotations

import dataclasses

from edge_runtime.api.generating import TextPlan
from edge_runtime.api.requests import ChatRequest, CompletionRequest
from edge_runtime.sampling import SamplingSettings
from edge_runtime.sessions.served import ServedText
from lambda_split.errors import ParameterInvalid

__all__ = ["check_stream_options", "text_plan"]

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_SEEDS = 1 << 64
_MOST_CHOICES = 128


def text_plan(
    request: ChatRequest | CompletionRequest,
    prompts: tuple[tuple[int, ...], ...],
    served: ServedText,
    *,
    max_new_tokens: int | None,
    top_logprobs: int | None,
) -> TextPlan:
    """The plan of a request.

    Args:
        request: What was asked.
        prompts: Its prompts, as tokens.
        served: The model, whose bundle says how to sample where the request does not.
        max_new_tokens: The most tokens of each answer; None for as many as there is room for.
        top_logprobs: Alternatives wanted with each token; None for no log-probabilities.

    Raises:
        ParameterInvalid: more texts than one request may have.
    """
    choices = request.n or 1
    if choices * len(prompts) > _MOST_CHOICES:
        raise ParameterInvalid("n", f"at most {_MOST_CHOICES} texts in one request, of all prompts")
    stop = request.stop
    return TextPlan(
        prompts=prompts,
        choices=choices,
        max_new_tokens=max_new_tokens,
        sampling=_sampling(request, served.default_sampling),
        stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        top_logprobs=top_logprobs,
    )


def check_stream_options(request: ChatRequest | CompletionRequest) -> bool:
    """Whether a stream should end with the usage.

    Raises:
        ParameterInvalid: options of a stream, and no stream.
    """
    if request.stream_options is None:
        return False
    if not request.stream:
        raise ParameterInvalid("stream_options", "it is for requests with 'stream': true")
    return bool(request.stream_options.include_usage)


def _sampling(
    request: ChatRequest | CompletionRequest, defaults: SamplingSettings
) -> SamplingSettings:
    given = {name: getattr(request, name) for name in _SAMPLING}
    seed = None if request.seed is None else request.seed % _SEEDS  # OpenAI's may be negative
    return dataclasses.replace(
        defaults, seed=seed, **{name: value for name, value in given.items() if value is not None}
    )

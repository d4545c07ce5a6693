"""Texts on a session, one choice after the other, as steps that any form of answer is made of."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from edge_runtime.api.replies import CachedTokens, Usage
from edge_runtime.generator import TextGenerator
from edge_runtime.logprobs import TokenLogprobs
from edge_runtime.sampling import SamplingSettings
from edge_runtime.sessions.pool import SessionPool
from edge_runtime.sessions.session_thread import Wanted, unless_given_up
from edge_runtime.stats import GenerationStats
from edge_runtime.stream import TextStream

__all__ = ["Delta", "SampledToken", "TextPlan", "deltas_of", "usage_of"]

_SEEDS = 1 << 64


@dataclass(frozen=True)
class TextPlan:
    """What is to be generated.

    Attributes:
        prompts: Token ids of each prompt.
        choices: Texts for each prompt. Those of one prompt differ by their seed: it counts up.
        max_new_tokens: The most tokens of each; None for as many as there is room for.
        sampling: How tokens are drawn.
        stop: Strings that end a text.
        top_logprobs: Alternatives wanted with each token; None for no log-probabilities at all.
    """

    prompts: tuple[tuple[int, ...], ...]
    choices: int
    max_new_tokens: int | None
    sampling: SamplingSettings
    stop: tuple[str, ...]
    top_logprobs: int | None


@dataclass(frozen=True)
class SampledToken:
    """A token whose text is part of the answer.

    Attributes:
        offset: Where its text begins, in characters of the choice's text.
        logprobs: What the model thought of it.
    """

    offset: int
    logprobs: TokenLogprobs


@dataclass(frozen=True)
class Delta:
    """What is new of one choice.

    Attributes:
        index: The choice: those of the first prompt come first.
        text: New text; may be empty.
        tokens: Its tokens, where log-probabilities are wanted.
        finish_reason: Why the choice has ended; None while it goes on.
        stats: What it cost, with the last of its deltas.
    """

    index: int
    text: str
    tokens: tuple[SampledToken, ...] = ()
    finish_reason: Literal["stop", "length"] | None = None
    stats: GenerationStats | None = None


def deltas_of(plan: TextPlan, pool: SessionPool[TextGenerator]) -> AsyncGenerator[Delta, None]:
    """Generate what a plan says on one of a pool's sessions.

    Ending the iteration early ends the generation within a token, or a piece of its prompt.

    Raises:
        Overloaded: there is no session to be had.
        LambdaSplitError: as :meth:`TextGenerator.open`, :meth:`TextGenerator.stream` and its
            iteration.
    """

    def job(generator: TextGenerator, wanted: Wanted) -> Generator[Delta | None]:
        generator.wait_while(wanted)
        yield from _deltas(plan, generator, wanted)

    return pool.run(job, plan.prompts[0])


def usage_of(plan: TextPlan, stats: Sequence[GenerationStats]) -> Usage:
    """The tokens of a request.

    Args:
        plan: What was asked for.
        stats: Of each choice, in order.
    """
    first = stats[:: plan.choices]  # of each prompt's choices the first: the others hold it all
    prompt = sum(one.prompt_tokens for one in first)
    completion = sum(one.completion_tokens for one in stats)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=CachedTokens(sum(one.cached_tokens for one in first)),
    )


def _deltas(plan: TextPlan, generator: TextGenerator, wanted: Wanted) -> Generator[Delta | None]:
    for place, prompt in enumerate(plan.prompts):
        for choice in range(plan.choices):
            seed = plan.sampling.seed
            sampling = dataclasses.replace(
                plan.sampling, seed=None if seed is None else (seed + choice) % _SEEDS
            )
            stream = generator.stream(
                prompt,
                max_new_tokens=plan.max_new_tokens or generator.max_positions,
                sampling=sampling,
                stop=plan.stop,
                top_logprobs=plan.top_logprobs,
                on_prompt=unless_given_up(wanted),
            )
            with stream:
                yield from _deltas_of_choice(place * plan.choices + choice, stream)


def _deltas_of_choice(index: int, stream: TextStream) -> Generator[Delta | None]:
    told = 0  # tokens whose log-probabilities went out
    shown = 0  # characters
    while (text := stream.advance()) is not None:
        shown += len(text)
        # A token belongs to the answer once some of its text does: a stop string may swallow it.
        sure = told
        while sure < len(stream.token_offsets) and stream.token_offsets[sure] < shown:
            sure += 1
        tokens, told = _tokens(stream, range(told, sure)), sure
        yield Delta(index, text, tokens) if text or tokens else None
    result = stream.result
    if result.finish_reason == "cancelled":
        return
    # Stop tokens and what belongs to a stop string have no text in the answer.
    stopped = result.finish_reason == "stop"
    end = bisect.bisect_left(result.token_offsets, shown) if stopped else len(result.token_ids)
    rest = _tokens(stream, range(told, end))
    yield Delta(index, "", rest, result.finish_reason, result.stats)


def _tokens(stream: TextStream, which: Iterable[int]) -> tuple[SampledToken, ...]:
    logprobs = stream.logprobs
    if logprobs is None:
        return ()
    return tuple(SampledToken(stream.token_offsets[place], logprobs[place]) for place in which)

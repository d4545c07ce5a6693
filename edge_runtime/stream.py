"""One running generation as a stream of text."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from edge_runtime.closing import Closing
from edge_runtime.detokenizer import Detokenizer
from edge_runtime.logprobs import TokenLogprobs
from edge_runtime.notebook import card, plain, preformatted, shares_bar
from edge_runtime.stats import GenerationStats, Meter, Stopwatch
from edge_runtime.stopping import StopMatcher
from edge_runtime.tokenizer import Tokenizer
from lambda_split.counting import counted
from lambda_split.errors import UsageError

__all__ = ["FinishReason", "GenerationResult", "TextStream"]

_LONGEST_REPR = 200  # characters of a text in a line about it

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class GenerationResult:
    """One generation that has ended.

    Attributes:
        text: The new text, without the stop string.
        token_ids: The sampled tokens, the stop token included.
        prompt_token_ids: The prompt's tokens.
        finish_reason: ``stop`` for a stop token or string, ``length`` for a full budget,
            ``cancelled`` where the stream was closed before its end.
        stats: What it cost.
        prompt_stats: The part of it up to the first sampled token; the rest is ``stats`` less this.
        token_offsets: Where each sampled token's text begins, in characters of the new text; of
            tokens that a stop string swallowed behind its end.
        logprobs: Of each sampled token, where they were asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    prompt_token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stats: GenerationStats
    prompt_stats: GenerationStats = field(default_factory=GenerationStats)
    token_offsets: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] | None = None

    def __repr__(self) -> str:
        speed = self.stats.tokens_per_s
        facts = [
            ("text", repr(_shortened(self.text))),
            ("of", counted(len(self.token_ids), "token")),
            ("finish_reason", repr(self.finish_reason)),
        ]
        return plain("GenerationResult", [*facts, *([("at", f"{speed:.1f}/s")] if speed else [])])

    def __rich_repr__(self) -> Iterator[tuple[str, object]]:
        yield "text", self.text
        yield "finish_reason", self.finish_reason
        yield "stats", self.stats

    def _repr_html_(self) -> str:
        return card(
            "GenerationResult",
            [("ended by", self.finish_reason), *self.stats.facts],
            preformatted(self.text),
            shares_bar(self.stats.shares, self.stats.total_s),
        )


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_REPR else f"{text[: _LONGEST_REPR - 1]}…"


class TextStream(Closing):
    """An iterator over the pieces of text of one running generation.

    Pieces are never empty and never hold half a character. Closing it early, with :meth:`close` or
    by leaving a ``with`` block, ends the generation; the generator is ready for the next prompt.
    :attr:`result` is there once the stream has ended or was closed.
    """

    def __init__(
        self,
        tokens: Iterator[int],
        prompt_token_ids: Sequence[int],
        tokenizer: Tokenizer,
        matcher: StopMatcher,
        *,
        stop_token_ids: frozenset[int],
        meter: Meter,
        logprobs: Sequence[TokenLogprobs] | None = None,
    ) -> None:
        """Use :meth:`TextGenerator.stream`.

        Args:
            tokens: Samples a token each time it is asked for one.
            prompt_token_ids: What the text follows on.
            tokenizer: Turns tokens into text.
            matcher: Finds the stop strings.
            stop_token_ids: Tokens that end the text.
            meter: What sampling costs is read from it.
            logprobs: Grows by one before each token is given; None where nobody asked for them.
        """
        self._tokens = tokens
        self._prompt_token_ids = tuple(prompt_token_ids)
        self._tokenizer = tokenizer
        self._matcher = matcher
        self._stop_token_ids = stop_token_ids
        self._meter = meter
        self._logprobs = logprobs
        self._pieces = self._generate()
        self._said: list[str] = []
        self._sampled: list[int] = []
        self._offsets: list[int] = []
        self._finish_reason: FinishReason | None = None
        # Both run only while this stream does: not while the caller works on a piece, and not
        # while another stream uses the same meter.
        self._stopwatch = Stopwatch()
        self._cost = GenerationStats()
        self._before = meter.reading()
        self._prompt_cost = GenerationStats()
        self._ttft_s = 0.0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while (piece := self.advance()) is not None:
            if piece:
                return piece
        raise StopIteration

    def advance(self) -> str | None:
        """Sample one token: for callers that want to stop, or to look, between any two.

        Returns:
            The text that may be shown now, empty where the token is special, ends inside a
            character or may begin a stop string; None once the stream has ended.
        """
        if self._finish_reason is not None:
            return None
        self._before = self._meter.reading()
        try:
            with self._stopwatch.running():
                return next(self._pieces, None)
        finally:
            self._cost += self._meter.since(self._before)

    @property
    def token_ids(self) -> Sequence[int]:
        """The tokens sampled so far."""
        return self._sampled

    @property
    def token_offsets(self) -> Sequence[int]:
        """Where each one's text begins, in characters of the new text."""
        return self._offsets

    @property
    def logprobs(self) -> Sequence[TokenLogprobs] | None:
        """Of each one, where they were asked for."""
        return self._logprobs

    @property
    def stats(self) -> GenerationStats:
        """What it has cost so far."""
        return replace(
            self._cost,
            prompt_tokens=len(self._prompt_token_ids),
            completion_tokens=len(self._sampled),
            ttft_s=self._ttft_s,
            total_s=self._stopwatch.seconds,
        )

    def close(self) -> None:
        """End the generation; what was said so far is the result.

        Nothing happens where it has ended already.

        Raises:
            UsageError: it is at its next piece: called by ``on_prompt``, or in another thread.
        """
        if inspect.getgeneratorstate(self._pieces) == inspect.GEN_RUNNING:
            raise UsageError("a stream is closed between two pieces; on_prompt ends it by an error")
        self._pieces.close()
        if self._finish_reason is None:
            self._finish_reason = "cancelled"

    @property
    def result(self) -> GenerationResult:
        """The whole generation.

        Raises:
            UsageError: it has not ended yet.
        """
        if self._finish_reason is None:
            raise UsageError("the stream has not ended: iterate over it, or close it")
        prompt_stats = replace(
            self._prompt_cost,
            prompt_tokens=len(self._prompt_token_ids),
            completion_tokens=min(len(self._sampled), 1),
            ttft_s=self._ttft_s,
            total_s=self._ttft_s,
        )
        return GenerationResult(
            text="".join(self._said),
            token_ids=tuple(self._sampled),
            prompt_token_ids=self._prompt_token_ids,
            finish_reason=self._finish_reason,
            stats=self.stats,
            prompt_stats=prompt_stats,
            token_offsets=tuple(self._offsets),
            logprobs=None if self._logprobs is None else tuple(self._logprobs),
        )

    def _generate(self) -> Generator[str]:
        stopped = False
        for piece, ends in self._texts():
            stopped = ends
            if piece:
                self._said.append(piece)
            yield piece
        self._finish_reason = "stop" if stopped else "length"

    def _texts(self) -> Iterator[tuple[str, bool]]:
        """What may be shown after each token, and whether the text stops there."""
        detokenizer = Detokenizer(self._tokenizer, self._prompt_token_ids)
        stopped = False
        decoded = 0  # characters, those held back included
        for token in self._tokens:
            if not self._sampled:
                self._ttft_s = self._stopwatch.seconds
                self._prompt_cost = self._cost + self._meter.since(self._before)
            self._sampled.append(token)
            self._offsets.append(decoded)
            stopped = token in self._stop_token_ids
            if stopped:
                break
            text = detokenizer.push(token)
            decoded += len(text)
            emitted = self._matcher.push(text)
            yield emitted.text, emitted.matched is not None
            if emitted.matched is not None:
                return
        # What was held back: an unfinished character, or the beginning of a stop string.
        emitted = self._matcher.push(detokenizer.flush())
        if emitted.matched is not None:
            yield emitted.text, True
        else:
            yield emitted.text + self._matcher.flush(), stopped

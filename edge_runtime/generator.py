"""Text generation on the device: the library that the command line and the APIs stand on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from edge_runtime.chat import ChatTemplate, Message
from edge_runtime.connection import Endpoint
from edge_runtime.context import Context
from edge_runtime.detokenizer import Detokenizer
from edge_runtime.graphs import RuntimeSettings, load_head, load_tail
from edge_runtime.replay import ReplayingTrunk, RetryPolicy
from edge_runtime.sampling import Sampler, SamplingSettings
from edge_runtime.stats import GenerationStats, Meter
from edge_runtime.stopping import StopMatcher
from edge_runtime.tokenizer import Tokenizer
from lambda_split.bundle import Bundle, TextSettings, load_bundle
from lambda_split.errors import ManifestInvalid, PromptEmpty, PromptTooLong, UsageError
from lambda_split.wire.frames import Codec

__all__ = ["FinishReason", "GenerationResult", "Prompt", "TextGenerator", "TextStream"]

DEFAULT_MAX_POSITIONS = 4096
DEFAULT_CHUNK_TOKENS = 128

FinishReason = Literal["stop", "length"]
Prompt = str | Sequence[Message] | Sequence[int]


@dataclass(frozen=True)
class GenerationResult:
    """One completed generation.

    Attributes:
        text: The new text, without the stop string.
        token_ids: The sampled tokens, the stop token included.
        prompt_token_ids: The prompt's tokens.
        finish_reason: ``stop`` for a stop token or string, ``length`` for a full budget.
        stats: What it cost.
    """

    text: str
    token_ids: tuple[int, ...]
    prompt_token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stats: GenerationStats


class TextStream:
    """An iterator over the pieces of text of one running generation.

    Pieces are never empty and never hold half a character. :attr:`result` is there once the
    iteration has ended. Closing it early leaves the generator ready for the next prompt.
    """

    def __init__(self, pieces: Iterator[str], outcome: list[GenerationResult]) -> None:
        self._pieces = pieces
        self._outcome = outcome

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def result(self) -> GenerationResult:
        """The whole generation.

        Raises:
            UsageError: it has not ended yet.
        """
        if not self._outcome:
            raise UsageError("the stream has not ended: iterate over it first")
        return self._outcome[0]


class TextGenerator:
    """Generates text with head and tail here and the trunk in the cloud.

    It holds one conversation: a prompt that begins like the one before reuses what all three parts
    still hold, so that a chat's next turn sends only what is new. Starting a generation ends the
    one before it. Not thread-safe: open one for each thread.

    Example::

        with TextGenerator.open("bundle/", "ws://127.0.0.1:8765") as llm:
            for piece in llm.stream("Once upon a time", max_new_tokens=64):
                print(piece, end="")
    """

    def __init__(
        self, bundle: Bundle, context: Context, trunk: ReplayingTrunk, meter: Meter
    ) -> None:
        """Use :meth:`open`, which builds these."""
        text = _text_settings(bundle)
        self._bundle = bundle
        self._context = context
        self._trunk = trunk
        self._meter = meter
        self._tokenizer = Tokenizer.load(
            bundle.file(text.tokenizer), bundle.manifest.geometry.vocab_size
        )
        self._template = _load_template(bundle, text)
        self._stop_token_ids = frozenset(text.stop_token_ids)
        self._turn = 0
        self.default_sampling = SamplingSettings(
            temperature=text.generation.temperature,
            top_k=text.generation.top_k,
            top_p=text.generation.top_p,
            min_p=text.generation.min_p,
            repetition_penalty=text.generation.repetition_penalty,
        )

    @classmethod
    def open(
        cls,
        bundle: str | os.PathLike[str] | Bundle,
        url: str,
        *,
        token: str | None = None,
        codec: str = "fp16",
        max_positions: int | None = None,
        chunk_tokens: int = DEFAULT_CHUNK_TOKENS,
        runtime: RuntimeSettings | None = None,
        retry: RetryPolicy | None = None,
    ) -> Self:
        """Load a bundle and open a session on a trunk service.

        Args:
            bundle: The bundle's folder, or one that was loaded already.
            url: ``ws://`` or ``wss://`` address of the trunk service.
            token: Bearer token, where the server wants one.
            codec: ``fp16``, ``bf16`` or ``fp32``: how hidden states cross the wire.
            max_positions: Tokens that the conversation may grow to; at most the model's own.
            chunk_tokens: Prompts go in pieces of that many tokens.
            runtime: Threads and memory settings of onnxruntime.
            retry: How hard to try when the connection is lost.

        Raises:
            BundleError: the bundle is missing, altered or malformed.
            UsageError: a setting makes no sense.
            LinkError: the server cannot be reached.
            Refused: the server does not serve this bundle.
        """
        loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        wanted = Codec.from_label(codec)
        if wanted is None:
            known = ", ".join(known.label for known in Codec)
            raise UsageError(f"unknown codec {codec!r}: choose one of {known}")
        limit = loaded.manifest.geometry.max_positions
        positions = min(limit, DEFAULT_MAX_POSITIONS) if max_positions is None else max_positions
        if not 1 <= positions <= limit:
            raise UsageError(f"max_positions must be between 1 and the model's {limit}")
        if chunk_tokens < 1:
            raise UsageError("chunk_tokens must be at least 1")
        settings = RuntimeSettings() if runtime is None else runtime
        head = load_head(loaded, settings)
        tail = load_tail(loaded, settings)
        meter = Meter()
        trunk = ReplayingTrunk(
            Endpoint(url, token),
            loaded.manifest,
            meter,
            codecs=(wanted,),
            max_positions=positions,
            chunk_tokens=chunk_tokens,
            retry=RetryPolicy() if retry is None else retry,
        )
        return cls(loaded, Context(head, tail, trunk, meter), trunk, meter)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session; the trunk frees its cache."""
        self._trunk.close()

    @property
    def bundle(self) -> Bundle:
        """The bundle that is running."""
        return self._bundle

    def tokenize(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt.

        Args:
            prompt: Text to continue (the tokenizer adds its own start token), messages to put
                through the chat template, or token ids as they are.

        Raises:
            UsageError: messages for a model without a chat template, or ids out of range.
            PromptEmpty: no tokens.
        """
        if isinstance(prompt, str):
            ids = self._tokenizer.encode(prompt, add_special_tokens=True)
        elif prompt and isinstance(prompt[0], Message):
            if self._template is None:
                raise UsageError("this model has no chat template: pass a text prompt")
            messages = [item for item in prompt if isinstance(item, Message)]
            text = self._template.render(messages, add_generation_prompt=True)
            ids = self._tokenizer.encode(text, add_special_tokens=False)
        else:
            ids = [item for item in prompt if isinstance(item, int)]
            self._tokenizer.check(ids)
        if not ids:
            raise PromptEmpty
        return ids

    def stream(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 128,
        sampling: SamplingSettings | None = None,
        stop: Sequence[str] = (),
    ) -> TextStream:
        """Generate, piece by piece.

        Args:
            prompt: As for :meth:`tokenize`.
            max_new_tokens: The most tokens to sample.
            sampling: The bundle's defaults where None.
            stop: Strings that end the generation; they are not part of the text.

        Raises:
            UsageError: a setting makes no sense, or the prompt is too long.
        """
        if max_new_tokens < 1:
            raise UsageError("max_new_tokens must be at least 1")
        ids = self.tokenize(prompt)
        if len(ids) > self._context.max_positions:
            raise PromptTooLong(
                "shorten it, or raise max_positions where the model allows more",
                len(ids),
                self._context.max_positions,
            )
        matcher = StopMatcher(stop)
        sampler = Sampler(self.default_sampling if sampling is None else sampling)
        outcome: list[GenerationResult] = []
        return TextStream(self._run(ids, max_new_tokens, sampler, matcher, outcome), outcome)

    def generate(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 128,
        sampling: SamplingSettings | None = None,
        stop: Sequence[str] = (),
    ) -> GenerationResult:
        """Generate to the end; arguments and errors as for :meth:`stream`."""
        stream = self.stream(prompt, max_new_tokens=max_new_tokens, sampling=sampling, stop=stop)
        for _ in stream:
            pass
        return stream.result

    def score(self, prompt: Prompt) -> npt.NDArray[np.float64]:
        """Log-probability of each token of a text, given the ones before it.

        They are computed on the device from exact logits; ``exp(-mean)`` is the perplexity.

        Args:
            prompt: As for :meth:`tokenize`; at least two tokens.

        Returns:
            float64 (tokens - 1,), in nats.
        """
        ids = self.tokenize(prompt)
        if len(ids) < 2:
            raise UsageError("a text of at least two tokens can be scored")
        self._turn += 1
        self._context.rewind(ids[:1])
        parts: list[npt.NDArray[np.float64]] = []
        position = 0
        for logits in self._context.extend_with_all_logits(ids[:-1]):
            wide = logits.astype(np.float64)  # (n, V)
            wide -= wide.max(axis=1, keepdims=True)
            targets = ids[position + 1 : position + 1 + len(wide)]
            picked = wide[np.arange(len(wide)), targets]  # (n, V) -> (n,)
            parts.append(picked - np.log(np.exp(wide).sum(axis=1)))
            position += len(wide)
        return np.concatenate(parts)

    def _run(
        self,
        prompt_ids: list[int],
        max_new_tokens: int,
        sampler: Sampler,
        matcher: StopMatcher,
        outcome: list[GenerationResult],
    ) -> Iterator[str]:
        self._turn += 1
        begin = time.perf_counter()
        before = self._meter.reading()
        detokenizer = Detokenizer(self._tokenizer, prompt_ids)
        cached = self._context.rewind(prompt_ids)
        pieces: list[str] = []
        sampled: list[int] = []
        stopped = False
        ttft_s = 0.0
        for token in self._sample(prompt_ids, cached, max_new_tokens, sampler):
            ttft_s = ttft_s or time.perf_counter() - begin
            sampled.append(token)
            if token in self._stop_token_ids:
                stopped = True
                break
            emitted = matcher.push(detokenizer.push(token))
            if emitted.text:
                pieces.append(emitted.text)
                yield emitted.text
            if emitted.matched is not None:
                stopped = True
                break
        if matcher.matched is None:
            # What was held back: an unfinished character, or the beginning of a stop string.
            emitted = matcher.push(detokenizer.flush())
            stopped = stopped or emitted.matched is not None
            rest = emitted.text + ("" if emitted.matched is not None else matcher.flush())
            if rest:
                pieces.append(rest)
                yield rest
        stats = replace(
            self._meter.since(before),
            prompt_tokens=len(prompt_ids),
            cached_tokens=cached,
            completion_tokens=len(sampled),
            ttft_s=ttft_s,
            total_s=time.perf_counter() - begin,
        )
        result = GenerationResult(
            text="".join(pieces),
            token_ids=tuple(sampled),
            prompt_token_ids=tuple(prompt_ids),
            finish_reason="stop" if stopped else "length",
            stats=stats,
        )
        outcome.append(result)

    def _sample(
        self, prompt_ids: list[int], cached: int, max_new_tokens: int, sampler: Sampler
    ) -> Iterator[int]:
        """Sampled tokens; each is run through the model only when the next one is asked for."""
        turn = self._turn
        history = list(prompt_ids)
        logits = self._context.extend(prompt_ids[cached:])
        # The last token sampled needs no position of its own.
        budget = min(max_new_tokens, self._context.max_positions - len(prompt_ids) + 1)
        for remaining in range(budget, 0, -1):
            token = sampler.sample(logits, history)
            history.append(token)
            yield token
            if turn != self._turn:
                raise UsageError(
                    "another generation was started on this TextGenerator: it holds one "
                    "conversation, open a second one for a second stream"
                )
            if remaining > 1:
                logits = self._context.extend([token])


def _text_settings(bundle: Bundle) -> TextSettings:
    text = bundle.manifest.text
    if bundle.manifest.kind != "causal-lm" or text is None:
        raise ManifestInvalid(str(bundle.path), "it is no language model: use ImageGenerator")
    return text


def _load_template(bundle: Bundle, text: TextSettings) -> ChatTemplate | None:
    if text.chat_template is None:
        return None
    source = bundle.file(text.chat_template).read_text(encoding="utf-8")
    return ChatTemplate.from_source(source, text.special_tokens)

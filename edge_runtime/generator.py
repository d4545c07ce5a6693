"""Text generation on the device: the library that the command line and the APIs stand on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from edge_runtime.closing import Closing
from edge_runtime.connection import Endpoint
from edge_runtime.context import Context
from edge_runtime.drawing import draw_split
from edge_runtime.given_numbers import whole_number
from edge_runtime.graphs import RuntimeSettings
from edge_runtime.logprobs import (
    TokenLogprobs,
    check_alternatives,
    log_probabilities,
    token_logprobs,
)
from edge_runtime.model import TextModel
from edge_runtime.notebook import Fact, card, plain
from edge_runtime.prompt import Prompt
from edge_runtime.replay import ReplayingTrunk
from edge_runtime.retry import RetryPolicy
from edge_runtime.sampling import Sampler, SamplingSettings
from edge_runtime.stats import Meter
from edge_runtime.stopping import StopMatcher
from edge_runtime.stream import GenerationResult, TextStream
from lambda_split.bundle import Bundle
from lambda_split.errors import PromptTooLong, UsageError
from lambda_split.split import Split
from lambda_split.wire.frames import Codec

__all__ = ["TextGenerator"]

DEFAULT_MAX_POSITIONS = 4096
DEFAULT_CHUNK_TOKENS = 128
_SHORTEN = "shorten it, or raise max_positions where the model allows more"


class TextGenerator(Closing):
    """Generates text with head and tail here and the trunk in the cloud.

    It holds one conversation: a prompt that begins like the one before reuses what all three parts
    still hold, so that a chat's next turn sends only what is new. Starting a generation ends the
    one before it. Not thread-safe: open one for each thread.

    Example:
        ```python
        with TextGenerator.open("bundle/", "ws://127.0.0.1:8765") as llm:
            for piece in llm.stream("Once upon a time", max_new_tokens=64):
                print(piece, end="")
        ```
    """

    def __init__(
        self,
        model: TextModel,
        context: Context,
        trunk: ReplayingTrunk,
        meter: Meter,
        *,
        split: Split,
    ) -> None:
        """Use :meth:`open`, which builds these."""
        text = model.text
        self._model = model
        self._split = split
        self._context = context
        self._trunk = trunk
        self._meter = meter
        self._stop_token_ids = frozenset(text.stop_token_ids)
        self._turn = 0
        self.default_sampling = SamplingSettings.of(text.generation)

    @classmethod
    def open(
        cls,
        bundle: str | os.PathLike[str] | Bundle | TextModel,
        url: str,
        *,
        token: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        codec: str = "fp16",
        split: Split | None = None,
        max_positions: int | None = None,
        chunk_tokens: int = DEFAULT_CHUNK_TOKENS,
        runtime: RuntimeSettings | None = None,
        retry: RetryPolicy | None = None,
    ) -> Self:
        """Load a bundle and open a session on a trunk service.

        Args:
            bundle: The bundle's folder, or one that was loaded already; a :class:`TextModel`,
                where several generators are to share what it has loaded.
            url: ``ws://`` or ``wss://`` address of the trunk service.
            token: Bearer token, where the server wants one.
            ca_file: PEM file with issuers to trust beside the system's, for a private certificate.
            codec: ``fp16``, ``bf16`` or ``fp32``: how hidden states cross the wire.
            split: Which of the bundle's splits to run. Where it has several and this is None, one
                is drawn from the system's random source; it stays as long as the session does.
            max_positions: Tokens that the conversation may grow to; at most the model's own.
            chunk_tokens: Prompts go in pieces of at most that many tokens.
            runtime: Threads and memory settings of onnxruntime; a :class:`TextModel` has its own.
            retry: How long to wait for the server, and how hard to try when the connection is
                lost.

        Raises:
            BundleError: the bundle is missing, altered or malformed.
            UsageError: a setting makes no sense, or the bundle has no such split.
            LinkError: the server cannot be reached.
            TlsError: its certificate is not to be trusted, or only one side speaks TLS.
            CapacityRefused: the server is full; ``retry_after_s`` says when to try again. (Only a
                session that was open once waits by itself, as ``retry`` says.)
            Refused: the server does not serve this bundle, or wants another token.
            ServerError: the server is shutting down, or failed.
            ProtocolError: the server broke the protocol.
            RemoteError: an error that this version does not know.
        """
        if not isinstance(bundle, TextModel):
            model = TextModel.load(bundle, runtime=runtime)
        elif runtime is None:
            model = bundle
        else:
            raise UsageError("a TextModel was loaded with runtime settings of its own")
        wanted = Codec.from_label(codec)
        if wanted is None:
            known = ", ".join(known.label for known in Codec)
            raise UsageError(f"unknown codec {codec!r}: choose one of {known}")
        manifest = model.bundle.manifest
        limit = manifest.geometry.max_positions
        positions = min(limit, DEFAULT_MAX_POSITIONS) if max_positions is None else max_positions
        positions = whole_number("max_positions", positions, 1)
        if positions > limit:
            raise UsageError(f"max_positions must be between 1 and the model's {limit}")
        chosen = manifest.at(draw_split(manifest.choices) if split is None else split)
        policy = RetryPolicy() if retry is None else retry
        meter = Meter()
        trunk = ReplayingTrunk(
            Endpoint(url, token, policy.connect_timeout_s, policy.reply_timeout_s, ca_file),
            chosen,
            meter,
            codec=wanted,
            max_positions=positions,
            chunk_tokens=whole_number("chunk_tokens", chunk_tokens, 1),
            retry=policy,
        )
        head, tail = model.graphs(chosen.split)
        context = Context(head, tail, trunk, meter)
        generator = cls(model, context, trunk, meter, split=chosen.split)
        # Last, so that whatever else is wrong takes no place on the server.
        trunk.connect()
        return generator

    def close(self) -> None:
        """End the session for good; the trunk frees its cache."""
        self._trunk.close()

    @property
    def facts(self) -> list[Fact]:
        """What people want to know of it, by name."""
        return [
            ("model", self.bundle.manifest.model.id),
            ("split", str(self._split)),
            ("holds", f"{len(self.held_token_ids):,} of {self.max_positions:,} tokens"),
            ("is", "closed" if self._trunk.closed else "open"),
        ]

    def __repr__(self) -> str:
        return plain(type(self).__name__, self.facts)

    def _repr_html_(self) -> str:
        return card(type(self).__name__, self.facts)

    @property
    def bundle(self) -> Bundle:
        """The bundle that is running."""
        return self._model.bundle

    @property
    def split(self) -> Split:
        """Where this session's model is cut: the bundle's split, or the one that was drawn."""
        return self._split

    @property
    def max_positions(self) -> int:
        """The most tokens that the conversation may have."""
        return self._context.max_positions

    @property
    def held_token_ids(self) -> Sequence[int]:
        """What head, trunk and tail hold: a prompt that begins so sends only the rest."""
        return self._context.token_ids

    def sent_states(self, last: int | None = None) -> npt.NDArray[np.float32]:
        """The hidden states that the trunk was sent for what is held, as it reads them.

        Args:
            last: Of the last so many positions only; of all where None.

        Returns:
            float32 (positions, hidden size), decoded from what went over the wire.

        Raises:
            UsageError: a negative number.
        """
        if last is not None and last < 0:
            raise UsageError("last must be 0 or more")
        return self._trunk.sent_states(last)

    def tokenize(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt.

        Args:
            prompt: Text to continue (the tokenizer adds its own start token); messages to put
                through the chat template, as :class:`Message` or as mappings with ``role`` and
                ``content``; or token ids as they are, integers of any kind.

        Raises:
            UsageError: an item of another kind, messages for a model without a chat template, or
                ids out of range.
            ChatTemplateError: the chat template refuses the messages.
            TokenizerInvalid: the tokenizer fails.
            PromptEmpty: no tokens.
        """
        return self._model.prompts.encode(prompt)

    def stream(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 128,
        sampling: SamplingSettings | None = None,
        stop: Sequence[str] = (),
        top_logprobs: int | None = None,
        on_prompt: Callable[[int, int], object] | None = None,
    ) -> TextStream:
        """Generate, piece by piece.

        Args:
            prompt: As for :meth:`tokenize`.
            max_new_tokens: The most tokens to sample.
            sampling: The bundle's defaults where None.
            stop: Strings that end the generation; they are not part of the text.
            top_logprobs: Also compute each sampled token's log-probability, and those of so many
                most likely ones, at most 20; None computes none.
            on_prompt: Called while the prompt is run, with how many of its tokens are done and how
                many there are, less those that were still held. Long prompts go in several pieces.
                What it raises ends the stream between two of them, and is raised there. It
                asks nothing of the generator or the stream but what they are and hold.

        Returns:
            The stream; nothing is computed before its first piece is asked for. Its iteration
            raises :class:`ConnectionLost` once replaying is given up, :class:`WireError` where the
            server objects or does not serve this bundle any more, :class:`BundleError` where a
            graph fails, and :class:`UsageError` once another generation was started.

        Raises:
            UsageError: a setting makes no sense, the generator is closed, or the prompt is none, as
                for :meth:`tokenize`, or too long.
            TokenizerInvalid: the tokenizer fails.
        """
        self._check_open()
        budget = whole_number("max_new_tokens", max_new_tokens, 1)
        ids = self.tokenize(prompt)
        if len(ids) > self._context.max_positions:
            raise PromptTooLong(_SHORTEN, len(ids), self._context.max_positions)
        matcher = StopMatcher(stop)
        sampler = Sampler(self.default_sampling if sampling is None else sampling)
        top = None if top_logprobs is None else check_alternatives(top_logprobs)
        logprobs: list[TokenLogprobs] = []
        return TextStream(
            self._sample(ids, budget, sampler, top, logprobs, on_prompt=on_prompt),
            ids,
            self._model.prompts.tokenizer,
            matcher,
            stop_token_ids=self._stop_token_ids,
            meter=self._meter,
            logprobs=None if top is None else logprobs,
        )

    def generate(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 128,
        sampling: SamplingSettings | None = None,
        stop: Sequence[str] = (),
        top_logprobs: int | None = None,
    ) -> GenerationResult:
        """Generate to the end; arguments and errors as for :meth:`stream` and its iteration."""
        stream = self.stream(
            prompt,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stop=stop,
            top_logprobs=top_logprobs,
        )
        for _ in stream:
            pass
        return stream.result

    def forget(self) -> None:
        """Drop what head, trunk and tail hold: the next prompt is run and sent from its start.

        A generation that is running ends, as when another one is started.

        Raises:
            UsageError: the generator is closed.
        """
        self._check_open()
        self._take_over()
        self._context.forget()

    def score(
        self, prompt: Prompt, *, on_prompt: Callable[[int, int], object] | None = None
    ) -> npt.NDArray[np.float64]:
        """Log-probability of each token of a text, given the ones before it.

        They are computed on the device from exact logits; ``exp(-mean)`` is the perplexity.

        Args:
            prompt: As for :meth:`tokenize`; at least two tokens.
            on_prompt: As for :meth:`stream`; the last token is not run.

        Returns:
            float64 (tokens - 1,), in nats.

        Raises:
            UsageError: the generator is closed, or the prompt is none, as for :meth:`tokenize`, or
                too short or too long.
            ConnectionLost: replaying was given up.
            WireError: the server objects or does not serve this bundle any more.
            BundleError: the tokenizer or a graph fails.
        """
        self._check_open()
        ids = self.tokenize(prompt)
        if len(ids) < 2:
            raise UsageError("a text of at least two tokens can be scored")
        if len(ids) - 1 > self._context.max_positions:
            raise PromptTooLong(_SHORTEN, len(ids), self._context.max_positions)
        self._take_over()
        self._context.rewind(ids[:1])
        # Closed here whatever happens: a traceback that somebody keeps would keep it running.
        with contextlib.closing(
            self._context.extend_with_all_logits(ids[:-1], on_prompt)
        ) as logits:
            return log_probabilities(logits, ids[1:])

    def wait_while(self, wanted: Callable[[], bool]) -> None:
        """From now on wait for a trunk that is away only as long as somebody wants it.

        For programs that run this in a thread, where Ctrl-C does not reach it.

        Args:
            wanted: Asked in that thread, some ten times a second; where it says no,
                :class:`ConnectionLost` is raised, and the generator stays usable.
        """
        self._trunk.wait_while(wanted)

    def _check_open(self) -> None:
        if self._trunk.closed:
            raise UsageError("this TextGenerator is closed: open another one")

    def _take_over(self) -> None:
        """End the generation before this one, unless it runs in this moment."""
        self._context.check_idle()
        self._turn += 1

    def _sample(
        self,
        prompt_ids: list[int],
        max_new_tokens: int,
        sampler: Sampler,
        top: int | None,
        logprobs: list[TokenLogprobs],
        *,
        on_prompt: Callable[[int, int], object] | None,
    ) -> Iterator[int]:
        """Sampled tokens; each is run through the model only when the next one is asked for.

        Where ``top`` is a number, each token's log-probabilities are appended before it is given.
        """
        history = list(prompt_ids)
        self._take_over()
        turn = self._turn
        cached = self._context.rewind(prompt_ids)
        logits = self._context.extend(prompt_ids[cached:], on_prompt)
        # The last token sampled needs no position of its own.
        budget = min(max_new_tokens, self._context.max_positions - len(prompt_ids) + 1)
        for remaining in range(budget, 0, -1):
            token = sampler.sample(logits, history)
            history.append(token)
            if top is not None:
                logprobs.append(token_logprobs(logits, token, top))
            yield token
            if turn != self._turn:
                raise UsageError(
                    "another generation was started on this TextGenerator: it holds one "
                    "conversation, open a second one for a second stream"
                )
            if remaining > 1:
                logits = self._context.extend([token])

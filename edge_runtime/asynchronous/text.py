"""Text generation for asyncio: the twins of :class:`TextGenerator` and of its stream."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Generator, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from edge_runtime.asynchronous.closing import AsyncClosing
from edge_runtime.asynchronous.stream import AsyncStream
from edge_runtime.asynchronous.worker import GivenUp, Wanted, Worker
from edge_runtime.generator import DEFAULT_CHUNK_TOKENS, TextGenerator
from edge_runtime.graphs import RuntimeSettings
from edge_runtime.model import TextModel
from edge_runtime.notebook import Fact, card, plain
from edge_runtime.prompt import Prompt
from edge_runtime.retry import RetryPolicy
from edge_runtime.sampling import SamplingSettings
from edge_runtime.stream import GenerationResult, TextStream
from lambda_split.bundle import Bundle
from lambda_split.split import Split

__all__ = ["AsyncTextGenerator", "AsyncTextStream"]

OnPrompt = Callable[[int, int], object]


class AsyncTextStream(AsyncStream[TextGenerator, TextStream, str]):
    """An asynchronous iterator over the pieces of text of one running generation.

    Pieces are never empty and never hold half a character. Nothing is computed ahead of what is
    asked for. Cancelling the task that waits for a piece, :meth:`aclose`, or leaving an
    ``async with`` block, ends the generation between two tokens.
    """

    @property
    def result(self) -> GenerationResult:
        """The whole generation.

        After a cancellation it is there once :meth:`aclose` was waited for.

        Raises:
            UsageError: it has not ended yet, or was closed before it began.
        """
        return self._finished().result

    async def finish(self) -> GenerationResult:
        """Generate what is left, and return the whole; errors as of the iteration."""
        return (await self._to_the_end()).result

    def _step(self, running: TextStream) -> str | None:
        return running.advance()


class AsyncTextGenerator(AsyncClosing):
    """Generates text as :class:`TextGenerator` does, in a thread of its own, for asyncio.

    It holds one conversation. What several tasks ask of it is done in turn, a stream's pieces each
    by itself: starting a generation ends the stream before it. For generations at the same time
    open several, on one :class:`TextModel`. Errors are those of the synchronous methods.

    Whoever is cancelled returns at once. A generation then ends between two tokens, within a
    prompt, as a score does, between two of its pieces, and what is asked next begins after that.

    Example:
        ```python
        async with await AsyncTextGenerator.open("bundle/", "ws://127.0.0.1:8765") as llm:
            async for piece in llm.stream("Once upon a time", max_new_tokens=64):
                print(piece, end="")
        ```
    """

    def __init__(self, worker: Worker[TextGenerator]) -> None:
        """Use :meth:`open`."""
        self._worker = worker
        self._generator = worker.generator

    @classmethod
    async def open(
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
        """Load a bundle and open a session; arguments and errors of :meth:`TextGenerator.open`."""
        opening = functools.partial(
            TextGenerator.open,
            bundle,
            url,
            token=token,
            ca_file=ca_file,
            codec=codec,
            split=split,
            max_positions=max_positions,
            chunk_tokens=chunk_tokens,
            runtime=runtime,
            retry=retry,
        )
        return cls(await Worker.open(opening, cls.__name__))

    async def aclose(self) -> None:
        """End the session for good, and what is running, whose tasks get a :class:`UsageError`.

        Where the trunk is away it is not waited for beyond some seconds.
        """
        await self._worker.close()

    @property
    def facts(self) -> list[Fact]:
        """What people want to know of it, by name."""
        return self._generator.facts

    def __repr__(self) -> str:
        return plain(type(self).__name__, self.facts)

    def _repr_html_(self) -> str:
        return card(type(self).__name__, self.facts)

    @property
    def bundle(self) -> Bundle:
        """The bundle that is running."""
        return self._generator.bundle

    @property
    def split(self) -> Split:
        """Where this session's model is cut: the bundle's split, or the one that was drawn."""
        return self._generator.split

    @property
    def max_positions(self) -> int:
        """The most tokens that the conversation may have."""
        return self._generator.max_positions

    @property
    def default_sampling(self) -> SamplingSettings:
        """The bundle's own settings, for where none are given."""
        return self._generator.default_sampling

    @property
    def held_token_ids(self) -> Sequence[int]:
        """What head, trunk and tail hold: a prompt that begins so sends only the rest."""
        return tuple(self._generator.held_token_ids)

    async def sent_states(self, last: int | None = None) -> npt.NDArray[np.float32]:
        """What the trunk was sent for what is held; see :meth:`TextGenerator.sent_states`."""
        return await self._worker.call(lambda llm: llm.sent_states(last))

    async def tokenize(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt; errors as of :meth:`TextGenerator.tokenize`."""
        return await self._worker.call(lambda llm: llm.tokenize(prompt))

    def stream(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 128,
        sampling: SamplingSettings | None = None,
        stop: Sequence[str] = (),
        top_logprobs: int | None = None,
        on_prompt: Callable[[int, int], object] | None = None,
    ) -> AsyncTextStream:
        """Generate, piece by piece; arguments of :meth:`TextGenerator.stream`.

        ``on_prompt`` is called in the event loop, which handles what it raises as it does with any
        callback: to end the stream, close it.

        Returns:
            The stream. Its iteration raises what :meth:`TextGenerator.stream` and its iteration do.
        """
        tell = None if on_prompt is None else _in_this_loop(on_prompt)

        def begin(llm: TextGenerator, wanted: Wanted) -> TextStream:
            return llm.stream(
                prompt,
                max_new_tokens=max_new_tokens,
                sampling=sampling,
                stop=stop,
                top_logprobs=top_logprobs,
                on_prompt=_telling_while(wanted, tell),
            )

        return AsyncTextStream(self._worker, begin)

    async def generate(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 128,
        sampling: SamplingSettings | None = None,
        stop: Sequence[str] = (),
        top_logprobs: int | None = None,
    ) -> GenerationResult:
        """Generate to the end; arguments and errors as of :meth:`TextGenerator.generate`."""
        stream = self.stream(
            prompt,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stop=stop,
            top_logprobs=top_logprobs,
        )
        return await stream.finish()

    async def forget(self) -> None:
        """Drop what head, trunk and tail hold; see :meth:`TextGenerator.forget`."""
        await self._worker.call(TextGenerator.forget)

    async def score(
        self, prompt: Prompt, *, on_prompt: Callable[[int, int], object] | None = None
    ) -> npt.NDArray[np.float64]:
        """Log-probability of each token of a text; see :meth:`TextGenerator.score`.

        ``on_prompt`` is called as for :meth:`stream`.
        """
        tell = None if on_prompt is None else _in_this_loop(on_prompt)

        def scoring(
            llm: TextGenerator, wanted: Wanted
        ) -> Generator[None, None, npt.NDArray[np.float64]]:
            yield  # by now it may be given up
            return llm.score(prompt, on_prompt=_telling_while(wanted, tell))

        return await self._worker.run(scoring)


def _telling_while(wanted: Wanted, tell: OnPrompt | None) -> OnPrompt:
    """What ends a prompt that nobody wants any more, and tells how far it is."""

    def told(done: int, tokens: int) -> None:
        if not wanted():
            raise GivenUp
        if tell is not None:
            tell(done, tokens)

    return told


def _in_this_loop(function: OnPrompt) -> OnPrompt:
    """A function that has another one called in the running event loop."""
    loop = asyncio.get_running_loop()
    return lambda done, tokens: loop.call_soon_threadsafe(function, done, tokens)

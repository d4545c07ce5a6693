"""Pictures for asyncio: the twins of :class:`ImageGenerator` and of its stream."""

from __future__ import annotations

import functools
import os
from typing import Self

import numpy as np
import numpy.typing as npt

from edge_runtime.asynchronous.closing import AsyncClosing
from edge_runtime.asynchronous.stream import AsyncStream
from edge_runtime.asynchronous.worker import Wanted, Worker
from edge_runtime.graph_session import RuntimeSettings
from edge_runtime.notebook import Fact, card, plain
from edge_runtime.pictures.generator import DEFAULT_FORMAT, ImageGenerator
from edge_runtime.pictures.request import PictureSpec
from edge_runtime.pictures.stream import ImageResult, ImageStep, ImageStream
from edge_runtime.retry import RetryPolicy
from lambda_split.image_bundle import ImageBundle

__all__ = ["AsyncImageGenerator", "AsyncImageStream"]

Latents = npt.NDArray[np.float32]


class AsyncImageStream(AsyncStream[ImageGenerator, ImageStream, ImageStep]):
    """Iterates asynchronously over the steps of pictures; :attr:`result` is there at the end.

    No step is taken ahead of what is asked for. Cancelling the task that waits for a step,
    :meth:`aclose`, or leaving an ``async with`` block, ends the work on them after that step.
    """

    @property
    def result(self) -> ImageResult:
        """The finished pictures.

        Raises:
            UsageError: not all steps were taken yet.
        """
        return self._finished().result

    async def finish(self) -> ImageResult:
        """Take the steps that are left, and return the pictures; errors as of the iteration."""
        return (await self._to_the_end()).result

    def _step(self, running: ImageStream) -> ImageStep | None:
        return next(running, None)


class AsyncImageGenerator(AsyncClosing):
    """Makes pictures as :class:`ImageGenerator` does, in a thread of its own, for asyncio.

    What several tasks ask of it is done in turn, a stream's steps each by itself: starting a
    picture ends the stream before it. Errors are those of the synchronous methods. Whoever is
    cancelled returns at once; the picture then ends after the step that is being taken.

    Example:
        ```python
        async with await AsyncImageGenerator.open("bundle/", "ws://127.0.0.1:8765") as painter:
            async for step in painter.stream("a red circle", preview_every=5):
                print(f"step {step.number} of {step.steps}")
        ```
    """

    def __init__(self, worker: Worker[ImageGenerator]) -> None:
        """Use :meth:`open`."""
        self._worker = worker
        self._generator = worker.generator

    @classmethod
    async def open(
        cls,
        bundle: str | os.PathLike[str] | ImageBundle,
        url: str,
        *,
        token: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        format: str = DEFAULT_FORMAT,  # noqa: A002  # the wire's own word for it
        max_pixels: int | None = None,
        runtime: RuntimeSettings | None = None,
        retry: RetryPolicy | None = None,
    ) -> Self:
        """Load a bundle and open a session; arguments and errors of :meth:`ImageGenerator.open`."""
        opening = functools.partial(
            ImageGenerator.open,
            bundle,
            url,
            token=token,
            ca_file=ca_file,
            format=format,
            max_pixels=max_pixels,
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
    def bundle(self) -> ImageBundle:
        """The bundle that is running."""
        return self._generator.bundle

    async def unseen_tokens(self, prompt: str) -> int:
        """How many tokens no text encoder takes; see :meth:`ImageGenerator.unseen_tokens`."""
        return await self._worker.call(lambda painter: painter.unseen_tokens(prompt))

    async def generate(
        self,
        prompt: str,
        *,
        negative_prompt: str = "",
        spec: PictureSpec | None = None,
        latents: Latents | None = None,
    ) -> ImageResult:
        """Make pictures; arguments and errors as of :meth:`ImageGenerator.generate`."""
        stream = self.stream(prompt, negative_prompt=negative_prompt, spec=spec, latents=latents)
        return await stream.finish()

    def stream(
        self,
        prompt: str,
        *,
        negative_prompt: str = "",
        spec: PictureSpec | None = None,
        latents: Latents | None = None,
        preview_every: int = 0,
    ) -> AsyncImageStream:
        """Make pictures, step by step; arguments of :meth:`ImageGenerator.stream`.

        Returns:
            The stream. Its iteration raises what :meth:`ImageGenerator.stream` and its iteration
            do.
        """

        def begin(painter: ImageGenerator, _: Wanted) -> ImageStream:
            return painter.stream(
                prompt,
                negative_prompt=negative_prompt,
                spec=spec,
                latents=latents,
                preview_every=preview_every,
            )

        return AsyncImageStream(self._worker, begin)

"""A running generation as an asynchronous iterator: each item is asked for when it is wanted."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Generator
from typing import Generic, Self, TypeVar

from edge_runtime.asynchronous.closing import AsyncClosing
from edge_runtime.asynchronous.worker import Held, Job, Wanted, Worker, one_step
from edge_runtime.closing import Closing
from lambda_split.errors import UsageError

__all__ = ["AsyncStream"]

Running = TypeVar("Running", bound=Closing)
Item = TypeVar("Item")
Result = TypeVar("Result")


class AsyncStream(AsyncClosing, Generic[Held, Running, Item]):
    """What streams of text and of pictures do alike.

    As with the synchronous ones nothing is computed before the first item is asked for, and no
    item before it is. Cancelling who waits for one ends the generation.

    Args:
        worker: The generator, in its thread.
        begin: Starts the generation, in the thread.
    """

    def __init__(self, worker: Worker[Held], begin: Callable[[Held, Wanted], Running]) -> None:
        self._worker = worker
        self._begin = begin
        self._running: Running | None = None  # the thread's, until it is through with it
        self._through = False
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        if self._ended:
            raise StopAsyncIteration
        item = await self._run(self._next)
        if item is None:
            self._ended = True
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        """End the generation; nothing happens where it has ended already."""
        self._ended = True
        if self._through:
            return
        if not self._worker.closed:
            with contextlib.suppress(UsageError):  # the generator was closed meanwhile
                await self._run(one_step(self._shut))
        if self._worker.over:  # then nobody else is at it
            self._shut()

    @abc.abstractmethod
    def _step(self, running: Running) -> Item | None:
        """The next item, None at the end; called in the thread. One that is false is not shown."""

    async def _to_the_end(self) -> Running:
        """Run what is left, without an item for each step."""
        return await self._run(self._rest)

    def _finished(self) -> Running:
        """The synchronous stream, once the thread is through with it.

        Raises:
            UsageError: it is not, or there was none.
        """
        if not self._through:
            raise UsageError("the stream has not ended: iterate over it, or aclose() it")
        if self._running is None:
            raise _closed_unbegun()
        return self._running

    async def _run(self, job: Job[Held, Result]) -> Result:
        try:
            return await self._worker.run(job)
        except BaseException:
            self._ended = True
            self._worker.leave(self._shut)
            raise

    def _next(self, held: Held, wanted: Wanted) -> Generator[None, None, Item | None]:
        running = self._started(held, wanted)
        while (item := self._step(running)) is not None:
            if item:
                return item
            yield
        self._through = True
        return None

    def _rest(self, held: Held, wanted: Wanted) -> Generator[None, None, Running]:
        running = self._started(held, wanted)
        while self._step(running) is not None:
            yield
        self._through = True
        return running

    def _started(self, held: Held, wanted: Wanted) -> Running:
        if self._running is None:
            if self._through:
                raise _closed_unbegun()
            self._running = self._begin(held, wanted)
        return self._running

    def _shut(self, _: Held | None = None) -> None:
        if self._running is not None:
            self._running.close()
        self._through = True


def _closed_unbegun() -> UsageError:
    return UsageError("the stream was closed, or failed, before it began: start another one")

"""A thread with a generator of its own, for a server that must not wait.

Generators are synchronous and each belongs to one thread. Here is that thread: the event loop gives
it one job at a time and takes what the job yields. A job that nobody wants any more ends between
two items; the generator is ready again when :attr:`SessionThread.job` is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Generic, TypeVar

from edge_runtime.closing import Closing

__all__ = ["SessionThread"]

Held = TypeVar("Held", bound=Closing)
Item = TypeVar("Item")


class SessionThread(Generic[Held]):
    """Opens a generator when the first job comes, and runs jobs on it.

    Not for several tasks at once: one job at a time.

    Attributes:
        generator: The open generator; None before the first job, and where opening failed.
        job: Done when the thread has nothing to do.
    """

    def __init__(self, open_generator: Callable[[], Held]) -> None:
        self.generator: Held | None = None
        self.job: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.job.set_result(None)
        self._open = open_generator
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # A daemon: a program that ends does not wait for a trunk that is away.
        self._thread = threading.Thread(target=self._run, name="session", daemon=True)
        self._thread.start()

    def start(self, job: Callable[[Held], Generator[Item | None]]) -> AsyncGenerator[Item, None]:
        """Start a job; its items are yielded as they come, and None of them means "nothing new".

        The job does not wait for who takes them. Leaving the iteration early, once it has begun,
        ends the job between two items. Its errors are raised by the iteration.

        Args:
            job: Called in the thread; a generator, which is closed where it does not end by itself.
        """
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Item | BaseException | None] = asyncio.Queue()
        unwanted = threading.Event()
        done: asyncio.Future[None] = loop.create_future()
        self.job = done

        def tell(item: Item | BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(arrived.put_nowait, item)

        def work() -> None:
            end = None
            try:
                with contextlib.closing(self._running(job)) as items:
                    for item in items:
                        if unwanted.is_set():
                            break
                        if item is not None:
                            tell(item)
            except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
                end = error
            # Free before the end is known, so that whoever knows of it meets a free session.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set_result, None)
            tell(end)

        async def arriving() -> AsyncGenerator[Item, None]:
            try:
                while (item := await arrived.get()) is not None:
                    if isinstance(item, BaseException):
                        raise item
                    yield item
            finally:
                unwanted.set()

        self._work.put(work)
        return arriving()

    def _running(self, job: Callable[[Held], Generator[Item | None]]) -> Generator[Item | None]:
        if self.generator is None:
            self.generator = self._open()
        yield None  # opening may have taken long: is it still wanted?
        yield from job(self.generator)

    def close(self) -> None:
        """End the generator's session, and the thread, once the running job is over."""
        self._work.put(None)

    def join(self, seconds: float) -> None:
        """Wait until it has ended, at most that long: a trunk that is away may hold it up."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
        if self.generator is not None:
            self.generator.close()

"""A thread with a generator of its own, for an event loop that must not wait.

Generators are synchronous and each belongs to one thread. Here is that thread: the event loop lets
it open the generator, then gives it one job at a time and takes what the job yields. A job that
nobody wants any more ends between two items, or where it asks; the generator is ready again when
:attr:`SessionThread.job` is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Generic, TypeVar

from edge_runtime.closing import Closing

__all__ = ["GivenUp", "Job", "SessionThread", "Wanted", "unless_given_up"]

Held = TypeVar("Held", bound=Closing)
Item = TypeVar("Item")

# Whether somebody waits for a job's items; for jobs that take long between two of them.
Wanted = Callable[[], bool]
# A generator of items, where None means "nothing new".
Job = Callable[[Held, Wanted], Generator[Item | None]]


class GivenUp(Exception):
    """Raised by a job that sees that nobody waits for its items any more; it ends by that."""


def unless_given_up(wanted: Wanted) -> Callable[[int, int], None]:
    """What ``on_prompt`` of a stream may be, so that a long prompt ends between two pieces.

    Raises:
        GivenUp: (what is returned, when it is called) nobody wants it any more.
    """

    def check(_done: int, _tokens: int) -> None:
        if not wanted():
            raise GivenUp

    return check


class SessionThread(Generic[Held]):
    """Opens a generator, and runs jobs on it.

    Not for several tasks at once: one job at a time.

    Attributes:
        generator: The open generator; None before :meth:`open`, and where that failed.
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

    def open(self) -> asyncio.Future[Held]:
        """Open the generator; the future has it, or the error of opening it."""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[Held] = loop.create_future()

        def settle(generator: Held | None, error: BaseException | None) -> None:
            if opened.cancelled():
                return
            if generator is not None:
                opened.set_result(generator)
            elif error is not None:
                opened.set_exception(error)

        def work() -> None:
            error = None
            try:
                self.generator = self._open()
            except BaseException as failure:  # noqa: BLE001  # raised again where it is waited for
                error = failure
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(settle, self.generator, error)

        self._work.put(work)
        return opened

    def start(self, job: Job[Held, Item]) -> AsyncGenerator[Item, None]:
        """Start a job; its items are yielded as they come.

        The job does not wait for who takes them. Leaving the iteration early, once it has begun,
        ends the job between two items, and tells it that it is not wanted. Its errors are raised by
        the iteration.

        Args:
            job: Called in the thread; a generator, which is closed where it does not end by itself.

        Raises:
            RuntimeError: the generator is not open.
        """
        if self.generator is None:
            raise RuntimeError("open it before jobs are run on it")
        generator = self.generator
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
                with contextlib.closing(job(generator, lambda: not unwanted.is_set())) as items:
                    for item in items:
                        if unwanted.is_set():
                            break
                        if item is not None:
                            tell(item)
            except GivenUp:
                pass
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

    def close(self) -> None:
        """End the generator's session, and the thread, once the running job is over."""
        self._work.put(None)

    @property
    def alive(self) -> bool:
        """Whether it runs; not where this process was forked from the one that started it."""
        return self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """Wait until it has ended, at most that long: a trunk that is away may hold it up."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # what it refers to is not kept until the next one comes
        if self.generator is not None:
            self.generator.close()

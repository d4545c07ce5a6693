"""A synchronous generator in a thread of its own, called from an event loop.

Each call is a job of :class:`SessionThread`, which runs them in the order in which they come. One
that is cancelled returns at once; its job ends as soon as it can, and the next comes after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable, Generator
from typing import Generic, Self, TypeVar

from edge_runtime.generator import TextGenerator
from edge_runtime.pictures.generator import ImageGenerator
from edge_runtime.sessions.session_thread import GivenUp, SessionThread, Wanted
from lambda_split.errors import ConnectionLost, UsageError

__all__ = ["GivenUp", "Held", "Job", "Wanted", "Worker", "one_step"]

_GOODBYE_S = 5.0  # a trunk that is away may hold up the thread, but not who closes it

Result = TypeVar("Result")


Held = TypeVar("Held", bound=TextGenerator | ImageGenerator)
Job = Callable[[Held, Wanted], Generator[None, None, Result]]


class Worker(Generic[Held]):
    """Calls a generator in its thread. Belongs to the event loop's thread.

    A worker that is dropped without being closed ends its thread and its session.

    Args:
        open_generator: Opens the generator; called in the thread.
        name: The class that users know it by.
    """

    def __init__(self, open_generator: Callable[[], Held], name: str) -> None:
        self._name = name
        self._thread = SessionThread(open_generator)
        self._closed = threading.Event()
        # Nothing that the thread keeps may refer to this object, or it would never be dropped.
        self._closing = weakref.finalize(self, _end, self._closed, self._thread)

    @classmethod
    async def open(cls, open_generator: Callable[[], Held], name: str) -> Self:
        """Start the thread and open its generator.

        Raises:
            LambdaSplitError: those of opening.
        """
        worker = cls(open_generator, name)
        try:
            await worker._thread.open()
        except BaseException:
            worker.end()  # also a session that is opened after all, when this was cancelled
            raise
        return worker

    @property
    def generator(self) -> Held:
        """The open generator, for what may be read from another thread.

        Raises:
            UsageError: it was never open.
        """
        if self._thread.generator is None:
            raise self._closed_error()
        return self._thread.generator

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed.is_set()

    @property
    def over(self) -> bool:
        """Whether its thread has ended: what it was at may be touched in another one."""
        return not self._thread.alive

    async def call(self, function: Callable[[Held], Result]) -> Result:
        """Call a function in the thread; errors as of :meth:`run`."""
        return await self.run(one_step(function))

    async def run(self, job: Job[Held, Result]) -> Result:
        """Run a job in the thread.

        Being cancelled, or closed meanwhile, ends the job between two of its steps.

        Args:
            job: A generator of steps, which returns the result. Its second argument says whether
                anybody still wants that; it may raise :class:`GivenUp` where nobody does.

        Raises:
            UsageError: it is closed, or was while the job ran, or is another process's.
            LambdaSplitError: the job's own.
        """
        if self.closed:
            raise self._closed_error()
        if not self._thread.alive:
            raise UsageError(
                f"this {self._name} is of the process that this one was forked from: open another "
                "one in this process"
            )
        steps = _steps(job, self._closed, self._closed_error())
        async with contextlib.aclosing(self._thread.start(steps)) as items:
            (result,) = await anext(items)
            return result

    def leave(self, function: Callable[[Held], object]) -> None:
        """Have a function called after what runs, unless it is closed; not waited for."""
        if not self.closed:
            never = threading.Event()  # also where it is closed before its turn
            self._thread.start(_steps(one_step(function), never, self._closed_error()))

    def end(self) -> None:
        """End the session, after what runs now."""
        self._closing()

    async def close(self) -> None:
        """End what runs and the session; waited for while the trunk is there, and not for long."""
        self.end()
        await asyncio.to_thread(self._thread.join, _GOODBYE_S)

    def _closed_error(self) -> UsageError:
        return UsageError(f"this {self._name} is closed: open another one")


def _end(closed: threading.Event, thread: SessionThread[Held]) -> None:
    closed.set()
    thread.close()


def _steps(
    job: Job[Held, Result], closed: threading.Event, ended: UsageError
) -> Callable[[Held, Wanted], Generator[tuple[Result] | None]]:
    """A job as the thread takes it: its result, boxed, as the last item.

    Args:
        job: The job.
        closed: Set where nothing is wanted any more.
        ended: Raised then, for those who still wait.
    """

    def stepping(held: Held, asked: Wanted) -> Generator[tuple[Result] | None]:
        def wanted() -> bool:
            return asked() and not closed.is_set()

        held.wait_while(wanted)
        with contextlib.closing(job(held, wanted)) as steps:
            try:
                while wanted():
                    try:
                        next(steps)
                    except StopIteration as end:
                        yield (end.value,)
                        return
                    yield None
            except (GivenUp, ConnectionLost):
                if wanted():
                    raise
        raise ended

    return stepping


def one_step(function: Callable[[Held], Result]) -> Job[Held, Result]:
    """A job that calls a function, unless it is given up before."""

    def job(held: Held, _: Wanted) -> Generator[None, None, Result]:
        yield  # by now it may be given up
        return function(held)

    return job

"""The asyncio front of an engine: sessions submit chunks, one thread runs what waits.

Only that thread touches torch; the event loop sees payload bytes. A step takes the oldest waiting
forward of every session, sessions in the order in which theirs arrived, so that nobody waits for
more than one chunk of each other session.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cloud import codecs
from cloud.engine import Engine, Outcome, SessionCache, Work
from lambda_split.errors import InternalError, ServerDraining
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.frames import Frame

__all__ = ["Reply", "Scheduler"]

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a forward gives: its last positions, laid out for the wire, and microseconds."""

    encoded: Encoded
    micros: int


@dataclass(frozen=True, slots=True)
class _Job:
    session: SessionCache
    forward: Frame
    future: Future[Reply] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Call(Generic[_T]):
    function: Callable[[], _T]
    future: Future[_T] = field(default_factory=Future)

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self.function())
        except Exception as error:  # noqa: BLE001 - handed to the caller
            self.future.set_exception(error)


class Scheduler:
    """Runs an engine in a thread of its own.

    Args:
        engine: Touched by that thread only, from now on.

    Attributes:
        fault: Done only if the thread died of a fault. Everything then fails with this error, whose
            incident number is in the log: the scheduler is of no use any more.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        # Guarded by the condition. Sessions with waiting forwards, the longest waiting first.
        self._waiting: collections.OrderedDict[SessionCache, collections.deque[_Job]] = (
            collections.OrderedDict()
        )
        self._calls: collections.deque[_Call[Any]] = collections.deque()
        self._ended: ServerDraining | InternalError | None = None  # why nothing is taken any more
        self.fault: Future[InternalError] = Future()
        # No daemon: torch aborts the process if its threads are torn down in mid-computation.
        self._thread = threading.Thread(target=self._run, name="engine")

    def start(self) -> None:
        """Begin to run what waits."""
        self._thread.start()

    async def open(self, layers: range, max_positions: int) -> SessionCache:
        """Open a session; arguments and errors as :meth:`Engine.open`."""
        opened = asyncio.wrap_future(self._call(lambda: self._engine.open(layers, max_positions)))
        try:
            return await asyncio.shield(opened)
        except asyncio.CancelledError:
            opened.add_done_callback(self._close_abandoned)
            raise

    def _close_abandoned(self, opened: asyncio.Future[SessionCache]) -> None:
        if not opened.cancelled() and opened.exception() is None:
            self.close(opened.result())

    def submit(self, session: SessionCache, forward: Frame) -> asyncio.Future[Reply]:
        """Queue a forward behind the session's earlier ones.

        Returns:
            Its reply. The session is as before if that is an exception: a
            :class:`~lambda_split.errors.RequestError` where the forward cannot be done,
            :class:`~lambda_split.errors.ServerDraining` where the scheduler stopped first, any
            other where something broke.
        """
        job = _Job(session, forward)
        with self._changed:
            if self._ended is not None:
                job.future.set_exception(self._ended)
            else:
                self._waiting.setdefault(session, collections.deque()).append(job)
                self._changed.notify()
        return asyncio.wrap_future(job.future)

    def close(self, session: SessionCache) -> None:
        """Drop what the session still has waiting, then free its memory; returns at once."""
        with self._changed:
            dropped = self._waiting.pop(session, ())
        for job in dropped:
            job.future.cancel()
        self._call(lambda: self._engine.close(session))

    async def stop(self, patience_s: float) -> None:
        """Stop; what waits gets ServerDraining.

        Args:
            patience_s: How long the running step may go on before it is interrupted.
        """
        for job in self._refuse_all(ServerDraining()):
            _fail(job.future, ServerDraining())
        try:
            await asyncio.to_thread(self._thread.join, patience_s)
        finally:  # also where this is canceled: no thread may outlive it for long
            if self._thread.is_alive():
                _logger.warning("a step is still running: it is interrupted")
                self._engine.interrupt()
        await asyncio.to_thread(self._thread.join)

    def _refuse_all(self, reason: ServerDraining | InternalError) -> list[_Job]:
        """Take nothing any more; returns the jobs that were waiting."""
        with self._changed:
            self._ended = self._ended or reason
            dropped = [job for jobs in self._waiting.values() for job in jobs]
            self._waiting.clear()
            self._changed.notify()
        return dropped

    def _call(self, function: Callable[[], _T]) -> Future[_T]:
        """Run something on the engine's thread, before the next work."""
        call = _Call(function)
        with self._changed:
            if self._ended is not None:
                call.future.set_exception(self._ended)
            else:
                self._calls.append(call)
                self._changed.notify()
        return call.future

    # --- on the engine's thread -------------------------------------------------------------------

    def _run(self) -> None:
        jobs: list[_Job] = []
        try:
            while (jobs := self._wait()) or self._ended is None:
                self._run_calls()
                self._step(jobs)
            self._run_calls()
        except BaseException:
            incident = secrets.token_hex(8)
            _logger.critical("incident %s: the engine's thread died", incident, exc_info=True)
            fault = InternalError(incident)
            for job in self._refuse_all(fault) + jobs:
                _fail(job.future, fault)
            while self._calls:
                _fail(self._calls.popleft().future, fault)
            self.fault.set_result(fault)

    def _wait(self) -> list[_Job]:
        """The works of the next step; none where there are only calls, or it is time to stop."""
        with self._changed:
            while not (self._waiting or self._calls or self._ended):
                self._changed.wait()
            return self._next_step()

    def _run_calls(self) -> None:
        """Open and close sessions, which must not wait for a whole step."""
        while self._calls:
            self._calls.popleft().run()

    def _next_step(self) -> list[_Job]:
        """The oldest job of each session; sessions with more go to the end of the line."""
        jobs = []
        for session in list(self._waiting):
            queue = self._waiting.pop(session)
            jobs.append(queue.popleft())
            if queue:
                self._waiting[session] = queue
        return jobs

    def _step(self, jobs: Sequence[_Job]) -> None:
        batch: list[tuple[_Job, Work]] = []
        for job in jobs:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                batch.append((job, self._decode(job)))
            except Exception as error:  # noqa: BLE001 - handed to the one who sent this forward
                job.future.set_exception(error)
        outcomes = self._outcomes([work for _, work in batch])
        for job, _ in batch:
            self._deliver(job, next(outcomes))
            self._run_calls()

    def _outcomes(self, batch: Sequence[Work]) -> Iterator[Outcome]:
        """The engine's outcomes; whatever happens to it, one for each work."""
        left = len(batch)
        try:
            for outcome in self._engine.step(batch):
                left -= 1
                yield outcome
            fault: Exception = RuntimeError("the engine left works of a step unanswered")
        except Exception as error:
            _logger.exception("the engine failed in a step")
            fault = error
        for _ in range(left):
            yield fault

    def _decode(self, job: _Job) -> Work:
        forward = job.forward
        hidden = codecs.decode(
            forward.payload,
            forward.codec,
            forward.tokens,
            self._engine.width,
            scaled=forward.scaled,
            dtype=self._engine.dtype,
            device=self._engine.device,
        )
        return Work(job.session, forward.start, hidden, forward.reply)

    def _deliver(self, job: _Job, outcome: Outcome) -> None:
        if isinstance(outcome, Exception):
            job.future.set_exception(outcome)
            return
        try:
            encoded = codecs.encode(outcome.hidden, job.forward.codec, outcome.largest)
        except Exception as error:  # noqa: BLE001 - handed to the one who sent this forward
            job.future.set_exception(self._revert(job.session) or error)
        else:
            job.future.set_result(Reply(encoded, outcome.micros))

    def _revert(self, session: SessionCache) -> Exception | None:
        """Take back the session's last work; the fault that keeps it from being taken back."""
        try:
            self._engine.revert(session)
        except Exception as error:
            _logger.exception("the engine could not take a work back")
            return error
        return None


def _fail(future: Future[Any], error: Exception) -> None:
    """Give a future its error, unless it is done or canceled."""
    if future.running() or (not future.done() and future.set_running_or_notify_cancel()):
        future.set_exception(error)

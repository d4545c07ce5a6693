"""The asyncio front of an engine: sessions submit forwards, one thread runs what waits.

Only that thread touches torch; the event loop sees payload bytes. A step takes the oldest waiting
forward of every session: short ones whole, of long ones (prompts, replays) pieces as
:mod:`cloud.pacing` allows, one session's after another's. So nobody waits for longer than a step.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from cloud.admission import Standing, Waiting, gives_way, longest_idle
from cloud.calls import Call
from cloud.engine import Piece, SessionCache
from cloud.jobs import Job, Reply, Request
from cloud.metrics import Metrics
from cloud.pacing import Pace, Pacing
from cloud.stepping import AnyEngine, run_step
from lambda_split.errors import CapacityRefused, InternalError, ServerDraining, SessionEvicted

__all__ = ["Reply", "Scheduler"]

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")
_WAITING_RETRY_S = 2


@dataclass(slots=True)
class _Session:
    standing: Standing
    on_evicted: Callable[[], None]
    decoded_at: float = -math.inf  # when its last short forward ran
    jobs: collections.deque[Job] = field(default_factory=collections.deque)


class Scheduler:
    """Runs an engine in a thread of its own.

    Args:
        engine: Touched by that thread only, from now on.
        pacing: How steps are filled.
        waiting: How much may wait.
        metrics: Counts steps and evictions.

    Attributes:
        fault: Done only if the thread died of a fault. Everything then fails with this error, whose
            incident number is in the log: the scheduler is of no use any more.
    """

    def __init__(
        self,
        engine: AnyEngine,
        *,
        pacing: Pacing | None = None,
        waiting: Waiting | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._engine = engine
        self._metrics = metrics or Metrics()
        self._pace = Pace(pacing or Pacing())
        self._limits = waiting or Waiting()
        self._changed = threading.Condition()
        # Guarded by the condition. Sessions with waiting jobs are in turn: the next one first.
        self._sessions: dict[SessionCache, _Session] = {}
        self._turns: collections.OrderedDict[SessionCache, None] = collections.OrderedDict()
        self._calls: collections.deque[Call[Any]] = collections.deque()
        self._ended: ServerDraining | InternalError | None = None  # why nothing is taken any more
        self._admissions = itertools.count()
        self.fault: Future[InternalError] = Future()
        # No daemon: torch aborts the process if its threads are torn down in mid-computation.
        self._thread = threading.Thread(target=self._run, name="engine")

    def start(self) -> None:
        """Begin to run what waits."""
        self._thread.start()

    async def open(
        self,
        opening: Callable[[], SessionCache],
        *,
        on_evicted: Callable[[], None] = lambda: None,
    ) -> SessionCache:
        """Open a session, if need be in the place of one that is idle.

        Args:
            opening: The engine's own way to make room for it, run on its thread; its errors are
                this method's.
            on_evicted: Called in the engine's thread when the session has lost its place; what it
                has waiting then fails with :class:`~lambda_split.errors.SessionEvicted`.

        Raises:
            CapacityRefused: there is no room, and nobody has been idle for long enough; or too
                much is waiting.
        """
        opened = asyncio.wrap_future(self._call(lambda: self._open(opening, on_evicted)))
        try:
            return await asyncio.shield(opened)
        except asyncio.CancelledError:
            opened.add_done_callback(self._close_abandoned)
            raise

    def _close_abandoned(self, opened: asyncio.Future[SessionCache]) -> None:
        if not opened.cancelled() and opened.exception() is None:
            self.close(opened.result())

    def submit(self, cache: SessionCache, request: Request) -> asyncio.Future[Reply]:
        """Queue a request behind the session's earlier ones.

        Returns:
            Its reply. The session is as before if that is an exception: a
            :class:`~lambda_split.errors.RequestError` where the forward cannot be done,
            :class:`~lambda_split.errors.SessionEvicted` where it lost its place,
            :class:`~lambda_split.errors.ServerDraining` where the scheduler stopped first, any
            other where something broke.
        """
        job = Job(request)
        with self._changed:
            session = self._sessions.get(cache)
            if self._ended is not None:
                job.future.set_exception(self._ended)
            elif session is None:
                job.future.set_exception(SessionEvicted())
            else:
                session.jobs.append(job)
                session.standing.busy = True
                self._turns.setdefault(cache)
                self._changed.notify()
        return asyncio.wrap_future(job.future)

    def close(self, cache: SessionCache) -> None:
        """Drop what the session still has waiting, then free its memory; returns at once."""
        for job in self._forget(cache):
            job.future.cancel()
        self._call(lambda: self._engine.close(cache))

    async def stop(self, patience_s: float) -> None:
        """Stop; what waits gets ServerDraining.

        Args:
            patience_s: How long the running step may go on before it is interrupted.
        """
        for job in self._refuse_all(ServerDraining()):
            job.fail(ServerDraining())
        try:
            await asyncio.to_thread(self._thread.join, patience_s)
        finally:  # also where this is canceled: no thread may outlive it for long
            if self._thread.is_alive():
                _logger.warning("a step is still running: it is interrupted")
                self._engine.interrupt()
        await asyncio.to_thread(self._thread.join)

    @property
    def alive(self) -> bool:
        """Whether the thread runs and takes what is submitted."""
        return self._ended is None and self._thread.is_alive()

    def _refuse_all(self, reason: ServerDraining | InternalError) -> list[Job]:
        """Take nothing any more; returns the jobs that were not taken, for the caller to end.

        Those that were are the thread's, which is in a step with them, or will end them.
        """
        refused: list[Job] = []
        with self._changed:
            self._ended = self._ended or reason
            for session in self._sessions.values():
                refused += [job for job in session.jobs if not job.taken]
                session.jobs = collections.deque(job for job in session.jobs if job.taken)
            self._turns.clear()
            self._changed.notify()
        return refused

    def _forget(self, cache: SessionCache) -> collections.deque[Job]:
        """The session is no more; returns what it had waiting."""
        with self._changed:
            session = self._sessions.pop(cache, None)
            self._turns.pop(cache, None)
        return collections.deque() if session is None else session.jobs

    def _call(self, function: Callable[[], _T]) -> Future[_T]:
        """Run something on the engine's thread, before the next step."""
        call = Call(function)
        with self._changed:
            if self._ended is not None:
                call.future.set_exception(self._ended)
            else:
                self._calls.append(call)
                self._changed.notify()
        return call.future

    # --- on the engine's thread -------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._wait():
                self._run_calls()
                self._step()
            self._run_calls()
            self._fail_all(self._ended or ServerDraining())
        except BaseException:
            incident = secrets.token_hex(8)
            _logger.critical("incident %s: the engine's thread died", incident, exc_info=True)
            fault = InternalError(incident)
            for job in self._refuse_all(fault):
                job.fail(fault)
            self._fail_all(fault)
            while self._calls:
                self._calls.popleft().future.set_exception(fault)
            self.fault.set_result(fault)

    def _fail_all(self, error: Exception) -> None:
        with self._changed:
            jobs = [job for session in self._sessions.values() for job in session.jobs]
        for job in jobs:
            job.fail(error)

    def _wait(self) -> bool:
        """Wait until there is something to do; False when it is time to stop."""
        with self._changed:
            while not (self._turns or self._calls or self._ended):
                self._changed.wait()
            return self._ended is None

    def _run_calls(self) -> None:
        """Open and close sessions, which must not wait for a step."""
        while self._calls:
            self._calls.popleft().run()
        self._count_memory()

    def _count_memory(self) -> None:
        use = self._engine.pool_use
        self._metrics.kv(
            used_blocks=use.used_blocks,
            total_blocks=use.total_blocks,
            block_positions=use.block_positions,
        )

    def _open(
        self, opening: Callable[[], SessionCache], on_evicted: Callable[[], None]
    ) -> SessionCache:
        with self._changed:
            waiting = sum(job.left for each in self._sessions.values() for job in each.jobs)
        if waiting > self._limits.max_positions:
            raise CapacityRefused(f"{waiting} positions are waiting", _WAITING_RETRY_S)
        while True:
            try:
                cache = opening()
            except CapacityRefused:
                if self._evict_idle() is None:
                    raise
            else:
                standing = Standing(cache, next(self._admissions), time.monotonic())
                with self._changed:
                    self._sessions[cache] = _Session(standing, on_evicted)
                return cache

    def _standings(self) -> list[Standing]:
        with self._changed:
            return [session.standing for session in self._sessions.values()]

    def _evict_idle(self) -> SessionCache | None:
        """Take the place of the session that is idle longest; None where nobody is."""
        victim = longest_idle(self._standings(), time.monotonic(), self._limits.evict_idle_s)
        if victim is not None:
            self._evict(victim, "idle")
        return victim

    def _evict(self, cache: SessionCache, why: Literal["idle", "pressure"]) -> None:
        _logger.info("a session loses its place (%s): its device will replay", why)
        with self._changed:
            session = self._sessions.get(cache)
        if session is None:
            return
        self._metrics.evicted(reason=why)
        session.on_evicted()
        for job in self._forget(cache):
            job.fail(SessionEvicted())
        self._engine.close(cache)

    def _step(self) -> None:
        batch = self._compose()
        if not batch:
            return
        began = time.monotonic()
        run_step(self._engine, batch)
        ended = time.monotonic()
        tokens = [(piece.tokens, self._pace.is_short(job.tokens)) for job, piece in batch]
        decode_tokens = sum(count for count, short in tokens if short)
        prompt_tokens = sum(count for count, short in tokens if not short)
        self._pace.ran(
            decode_tokens=decode_tokens,
            prompt_tokens=prompt_tokens,
            seconds=ended - began,
        )
        self._metrics.step(
            sessions=len(batch),
            decode_tokens=decode_tokens,
            prompt_tokens=prompt_tokens,
            seconds=ended - began,
        )
        self._end_turns([piece.session for _, piece in batch], ended)

    def _compose(self) -> list[tuple[Job, Piece]]:
        """The pieces of the next step, memory taken for them."""
        with self._changed:
            heads = [(cache, self._sessions[cache].jobs[0]) for cache in self._turns]
            decoded = [(cache, each.decoded_at) for cache, each in self._sessions.items()]
        short = [pair for pair in heads if self._pace.is_short(pair[1].tokens)]
        long = [pair for pair in heads if not self._pace.is_short(pair[1].tokens)]
        prompts, now = {cache for cache, _ in long}, time.monotonic()
        decoding = any(self._pace.decodes(at, now) for cache, at in decoded if cache not in prompts)
        alone = bool(short) and self._pace.wants_decoding_alone
        budget = 0 if alone else self._pace.prompt_tokens(decoding=decoding or bool(short))
        batch: dict[SessionCache, tuple[Job, Piece]] = {}
        for cache, job in (*short, *long):
            is_short = self._pace.is_short(job.tokens)
            tokens = job.left if is_short else min(job.left, budget)
            if not tokens or not self._begin(cache, job):
                continue
            piece = job.next_piece(cache, tokens)
            for victim in self._make_room(cache, piece.end):
                batch.pop(victim, None)
                if victim is cache:
                    break
            else:
                batch[cache] = (job, piece)
                budget -= 0 if is_short else tokens
        return list(batch.values())

    def _begin(self, cache: SessionCache, job: Job) -> bool:
        """Decode a job when its turn comes; False where that fails, or nobody waits for it."""
        with self._changed:
            session = self._sessions.get(cache)
            if session is None or not session.jobs or session.jobs[0] is not job:
                return False  # closed or stopped since
            taken = job.take()
        if taken:
            try:
                job.request.read()
            except Exception as error:  # noqa: BLE001 - handed to the one who sent this forward
                job.fail(error)
            else:
                return True
        self._end_job(cache, job)
        return False

    def _make_room(self, cache: SessionCache, end: int) -> Iterator[SessionCache]:
        """Take memory for a session; yields those who cannot be in this step for it, maybe itself.

        All but one that only waits for a close have lost their place.
        """
        while not self._engine.reserve(cache, end):
            if self._calls:
                # Somebody may have just left, whose memory is free before the next step.
                yield cache
                return
            victim = self._evict_idle()
            if victim is None:
                victim = gives_way(self._standings(), cache)
                self._evict(victim, "pressure")
            yield victim

    def _end_turns(self, caches: Sequence[SessionCache], now: float) -> None:
        """Those who had a turn go to the end of the line, or leave it where nothing waits."""
        with self._changed:
            for cache in caches:
                session = self._sessions.get(cache)
                if session is None:
                    continue
                session.standing.idle_since = now
                if session.jobs and session.jobs[0].future.done():
                    done = session.jobs.popleft()
                    if self._pace.is_short(done.tokens):
                        session.decoded_at = now
                self._requeue(cache, session)

    def _end_job(self, cache: SessionCache, job: Job) -> None:
        with self._changed:
            session = self._sessions.get(cache)
            if session is not None and session.jobs and session.jobs[0] is job:
                session.jobs.popleft()
                self._requeue(cache, session)

    def _requeue(self, cache: SessionCache, session: _Session) -> None:
        session.standing.busy = bool(session.jobs)
        self._turns.pop(cache, None)
        if session.jobs:
            self._turns[cache] = None

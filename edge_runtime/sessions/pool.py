"""Which session answers a request: at most so many, reused, with a bounded queue before them."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from edge_runtime.closing import Closing
from edge_runtime.sessions.session_thread import Job, SessionThread
from lambda_split.errors import CapacityRefused, Overloaded

__all__ = ["PoolLimits", "SessionPool", "shared_prefix"]

Held = TypeVar("Held", bound=Closing)
Item = TypeVar("Item")

_RETRY_AFTER_S = 5
_LEAST_PAUSE_S = 1  # between two questions whether the trunk is full still
_GOODBYE_S = 2.0  # so that the trunk learns of the end


@dataclass(frozen=True)
class PoolLimits:
    """How many requests are worked on, and how many wait.

    Attributes:
        sessions: The most sessions, each for one request at a time.
        waiting: The most requests that wait for one.
        wait_s: The longest that one waits.
        idle_s: A session that was not used for so long is closed: it takes a place on the trunk.
    """

    sessions: int = 4
    waiting: int = 32
    wait_s: float = 60.0
    idle_s: float = 300.0


class SessionPool(Generic[Held]):
    """Lends sessions. Belongs to the event loop's thread.

    A conversation's next turn should meet the session that holds it, so that only what is new is
    sent. So a free session is taken where the new prompt and what it holds have much in common, at
    least half of the shorter of the two. Otherwise a new one is opened, and where there may be no
    more, the one that shares most is taken, of several the one that was not used for longest.

    There may be no more for a while, too, where the trunk is full: requests then share the sessions
    that there are, and are refused only where there is none.
    """

    def __init__(
        self,
        open_generator: Callable[[], Held],
        limits: PoolLimits,
        *,
        held: Callable[[Held], Sequence[int]],
    ) -> None:
        """Prepare a pool; sessions are opened as they are needed.

        Args:
            open_generator: Opens a session on the trunk; called in the session's thread.
            limits: How many.
            held: The tokens that a session holds.
        """
        self._open = open_generator
        self._limits = limits
        self._held = held
        self._free: list[SessionThread[Held]] = []  # the longest unused first
        self._busy: set[SessionThread[Held]] = set()
        # Each gets a session, or None: a place for another one, so that it should choose again.
        self._waiting: collections.deque[asyncio.Future[SessionThread[Held] | None]] = (
            collections.deque()
        )
        self._full_until = -math.inf  # the trunk, in the loop's time
        self._expiry: dict[SessionThread[Held], asyncio.TimerHandle] = {}
        self._closed = False

    @property
    def limit(self) -> int:
        """The most sessions."""
        return self._limits.sessions

    @property
    def open(self) -> int:
        """Sessions that there are."""
        return len(self._free) + len(self._busy)

    @property
    def busy(self) -> int:
        """Those of them that work."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """Requests that wait for one."""
        return len(self._waiting)

    async def run(
        self, job: Job[Held, Item], token_ids: Sequence[int] = ()
    ) -> AsyncGenerator[Item, None]:
        """Run a job on a session, and yield its items.

        The session is free again when the job is done, however long its items take to be taken. A
        job that nobody wants any more ends by itself: it is not waited for here.

        Args:
            job: What :meth:`SessionThread.start` starts.
            token_ids: What is going to be asked of the session.

        Raises:
            Overloaded: all are busy, and too many wait or it took too long.
            CapacityRefused: there is none, and the trunk is full.
            LambdaSplitError: the job's own, and those of opening a session.
        """
        session = await self._session(token_ids)
        items = session.start(job)
        session.job.add_done_callback(lambda _: self._give_back(session))
        async with contextlib.aclosing(items):
            async for item in items:
                yield item

    async def close(self) -> None:
        """End all sessions; those that work, when they are done, which is not waited for."""
        self._closed = True
        idle, self._free = self._free, []
        for session in [*idle, *self._busy]:
            session.close()
        for handle in self._expiry.values():
            handle.cancel()
        for session in idle:
            await asyncio.to_thread(session.join, _GOODBYE_S)

    async def _session(self, token_ids: Sequence[int]) -> SessionThread[Held]:
        """An open session that belongs to nobody else."""
        its_turn = False
        deadline = asyncio.get_running_loop().time() + self._limits.wait_s
        while True:
            session = self._choose(token_ids) if its_turn or not self._waiting else None
            if session is None:
                session = await self._wait(deadline, first=its_turn)
            its_turn = True
            if session is None:
                continue
            if session.generator is not None:
                return session
            try:
                await self._open_session(session)
            except CapacityRefused:
                if not self.open:
                    raise
            else:
                return session

    def _choose(self, token_ids: Sequence[int]) -> SessionThread[Held] | None:
        best, most, fits = None, -1, False
        for session in self._free:
            held = () if session.generator is None else self._held(session.generator)
            shared = shared_prefix(held, token_ids)
            if shared > most:
                best, most = session, shared
                fits = 2 * shared >= min(len(held), len(token_ids))
        if best is not None and (fits or not self._has_room()):
            self._free.remove(best)
            self._expiry.pop(best).cancel()
        elif self._has_room():
            best = SessionThread(self._open)
        if best is not None:
            self._busy.add(best)
        return best

    def _has_room(self) -> bool:
        """Whether another session may be opened."""
        if not self.open:
            return True  # whether the trunk is full still, only it can say
        full = asyncio.get_running_loop().time() < self._full_until
        return self.open < self._limits.sessions and not full

    async def _open_session(self, session: SessionThread[Held]) -> None:
        opening = session.open()
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            # It cannot be interrupted, and will do for another request.
            opening.add_done_callback(lambda done: self._opened_for_nobody(session, done))
            raise
        except Exception as error:
            self._note_full(error)
            self._give_back(session)
            raise
        self._wake()  # there may be room for yet another

    def _opened_for_nobody(
        self, session: SessionThread[Held], opening: asyncio.Future[Held]
    ) -> None:
        # Taken, or asyncio would log that nobody did, with a stack trace.
        self._note_full(opening.exception())
        self._give_back(session)
        self._wake()  # as where somebody waited for it

    def _note_full(self, error: BaseException | None) -> None:
        if not isinstance(error, CapacityRefused):
            return
        loop = asyncio.get_running_loop()
        seconds = max(error.retry_after_s, _LEAST_PAUSE_S)
        self._full_until = loop.time() + seconds
        loop.call_later(seconds, self._wake)

    async def _wait(self, deadline: float, *, first: bool) -> SessionThread[Held] | None:
        """Wait for a session that is open, or None for a place for another one.

        Args:
            deadline: How long, in the loop's time.
            first: Before all others, because it was its turn already.
        """
        if len(self._waiting) >= self._limits.waiting and not first:
            raise Overloaded(f"{len(self._waiting)} requests wait already", _RETRY_AFTER_S)
        turn: asyncio.Future[SessionThread[Held] | None]
        turn = asyncio.get_running_loop().create_future()
        if first:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        try:
            async with asyncio.timeout_at(deadline):
                return await turn
        except BaseException as error:
            if turn in self._waiting:
                self._waiting.remove(turn)
            if turn.done() and not turn.cancelled():  # it was this one's turn at that moment
                session = turn.result()
                if session is None:
                    self._wake()
                else:
                    self._give_back(session)
            if isinstance(error, TimeoutError):
                waited = math.ceil(self._limits.wait_s)
                raise Overloaded(f"none became free in {waited} s", _RETRY_AFTER_S) from error
            raise

    def _give_back(self, session: SessionThread[Held]) -> None:
        if self._closed:
            return
        if session.generator is None:  # it could not be opened
            self._busy.discard(session)
            session.close()
            self._wake()
            return
        if self._call_next(session):
            return
        self._busy.discard(session)
        self._free.append(session)
        loop = asyncio.get_running_loop()
        self._expiry[session] = loop.call_later(self._limits.idle_s, self._expire, session)

    def _wake(self) -> None:
        """Who waits longest chooses again, where another session may be opened."""
        if not self._closed and self._has_room():
            self._call_next(None)

    def _call_next(self, session: SessionThread[Held] | None) -> bool:
        """Give something to who waits longest; False where nobody does."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(session)
                return True
        return False

    def _expire(self, session: SessionThread[Held]) -> None:
        self._free.remove(session)
        self._expiry.pop(session)
        session.close()


def shared_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count

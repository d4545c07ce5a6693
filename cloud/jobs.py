"""A request on its way through an engine, in one piece or several."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from cloud.engine import Piece, SessionCache
from lambda_split.wire.codecs import Encoded

__all__ = ["Job", "Reply", "Request"]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request gives: its result, laid out for the wire, and microseconds."""

    encoded: Encoded
    micros: int


class Request(Protocol):
    """What a device asks of an engine, which only that engine's kind of model knows to read.

    Its pieces and their results are the engine's own: a scheduler hands them on.
    """

    @property
    def tokens(self) -> int:
        """Positions that it takes."""
        ...

    def read(self) -> None:
        """Read its payload; called again, nothing happens.

        Raises:
            RequestError: the payload holds what cannot be run.
        """
        ...

    def piece(self, session: SessionCache, done: int, tokens: int) -> Piece:
        """What a step runs of it: so many positions behind those that are done."""
        ...

    def reply(self, results: list[Any]) -> Reply:
        """What its pieces' results are together.

        Raises:
            CodecOverflow: a result that the codec cannot hold.
        """
        ...


@dataclass(eq=False, slots=True)
class Job:
    """A request, how far it has come, and who waits for it.

    Attributes:
        request: As it came.
        future: Gets the reply, or the error.
        done: Positions that have run.
        taken: By the engine's thread, which alone gives the future its reply or error from then on.
    """

    request: Request
    future: Future[Reply] = field(default_factory=Future)
    done: int = 0
    taken: bool = False
    _session: SessionCache | None = None
    _results: list[Any] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Positions that it takes in all."""
        return self.request.tokens

    @property
    def left(self) -> int:
        """Positions that have not run yet."""
        return self.request.tokens - self.done

    @property
    def session(self) -> SessionCache:
        """Whose it is, once it has a piece."""
        if self._session is None:
            raise RuntimeError("the job has not begun")
        return self._session

    def take(self) -> bool:
        """Take it, unless that was done; False where nobody waits for it any more."""
        if not self.taken:
            self.taken = self.future.set_running_or_notify_cancel()
        return self.taken

    def next_piece(self, session: SessionCache, tokens: int) -> Piece:
        """The next piece, of so many positions."""
        self._session = session
        return self.request.piece(session, self.done, tokens)

    def add(self, result: object, tokens: int) -> None:
        """A piece has run."""
        self.done += tokens
        self._results.append(result)

    def succeed(self) -> None:
        """Give the future its reply.

        Raises:
            CodecOverflow: a result that the codec cannot hold.
        """
        self.future.set_result(self.request.reply(self._results))

    def fail(self, error: Exception) -> None:
        """Give the future its error, unless it is done or canceled."""
        future = self.future
        if future.running() or (not future.done() and future.set_running_or_notify_cancel()):
            future.set_exception(error)

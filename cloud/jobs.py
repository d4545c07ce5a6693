"""A forward on its way through the engine, in one piece or several."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import torch

from cloud import codecs
from cloud.engine import Engine, Result, SessionCache, Work
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.frames import Frame

__all__ = ["Job", "Reply"]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a forward gives: its last positions, laid out for the wire, and microseconds."""

    encoded: Encoded
    micros: int


@dataclass(eq=False, slots=True)
class Job:
    """A forward, how far it has come, and who waits for it.

    Attributes:
        forward: As it came.
        future: Gets the reply, or the error.
        done: Positions that have run.
        taken: By the engine's thread, which alone gives the future its reply or error from then on.
    """

    forward: Frame
    future: Future[Reply] = field(default_factory=Future)
    done: int = 0
    taken: bool = False
    _session: SessionCache | None = None
    _hidden: torch.Tensor | None = None
    _results: list[Result] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Positions that have not run yet."""
        return self.forward.tokens - self.done

    @property
    def session(self) -> SessionCache:
        """Whose it is, once it has a work."""
        if self._session is None:
            raise RuntimeError("the job has not begun")
        return self._session

    def take(self) -> bool:
        """Take it, unless that was done; False where nobody waits for it any more."""
        if not self.taken:
            self.taken = self.future.set_running_or_notify_cancel()
        return self.taken

    def read(self, engine: Engine) -> None:
        """Read the payload, unless that was done.

        Raises:
            NonFinite: the payload holds NaN or infinity.
        """
        if self._hidden is not None:
            return
        forward = self.forward
        self._hidden = codecs.decode(
            forward.payload,
            forward.codec,
            forward.tokens,
            engine.width,
            scaled=forward.scaled,
            dtype=engine.dtype,
        )

    def next_work(self, session: SessionCache, tokens: int) -> Work:
        """The next piece, of so many positions."""
        if self._hidden is None:
            raise RuntimeError("the payload has not been read")
        self._session = session
        end = self.done + tokens
        # Of the last `reply` positions of the forward, those that lie in this piece.
        first_wanted = self.forward.tokens - self.forward.reply
        return Work(
            session,
            self.forward.start + self.done,
            self._hidden[self.done : end],  # (tokens, width)
            reply=max(0, end - max(self.done, first_wanted)),
            begins=self.done == 0,
        )

    def add(self, result: Result, tokens: int) -> None:
        """A piece has run."""
        self.done += tokens
        self._results.append(result)

    def succeed(self) -> None:
        """Give the future its reply.

        Raises:
            CodecOverflow: a result that the codec cannot hold.
        """
        results = self._results
        hidden = torch.cat([result.hidden for result in results])  # (reply, width)
        largest = np.concatenate([result.largest for result in results])  # (reply,)
        encoded = codecs.encode(hidden, self.forward.codec, largest)
        self.future.set_result(Reply(encoded, sum(result.micros for result in results)))

    def fail(self, error: Exception) -> None:
        """Give the future its error, unless it is done or canceled."""
        future = self.future
        if future.running() or (not future.done() and future.set_running_or_notify_cancel()):
            future.set_exception(error)

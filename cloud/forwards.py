"""A forward of hidden states, as an engine of decoder layers runs it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cloud import codecs
from cloud.engine import Result, SessionCache, Work
from cloud.jobs import Reply
from lambda_split.wire.frames import Frame

__all__ = ["Forward"]


@dataclass(eq=False, slots=True)
class Forward:
    """A forward frame; see :class:`~cloud.jobs.Request`.

    Attributes:
        frame: As it came.
        width: Hidden size.
        dtype: What the engine computes in.
    """

    frame: Frame
    width: int
    dtype: torch.dtype
    _hidden: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        """Positions that it takes."""
        return self.frame.tokens

    def read(self) -> None:
        """Read the payload, unless that was done.

        Raises:
            NonFinite: the payload holds NaN or infinity.
        """
        if self._hidden is not None:
            return
        frame = self.frame
        self._hidden = codecs.decode(
            frame.payload,
            frame.codec,
            frame.tokens,
            self.width,
            scaled=frame.scaled,
            dtype=self.dtype,
        )

    def piece(self, session: SessionCache, done: int, tokens: int) -> Work:
        """The next piece, of so many positions."""
        if self._hidden is None:
            raise RuntimeError("the payload has not been read")
        end = done + tokens
        # Of the last `reply` positions of the forward, those that lie in this piece.
        first_wanted = self.frame.tokens - self.frame.reply
        return Work(
            session,
            self.frame.start + done,
            self._hidden[done:end],  # (tokens, width)
            reply=max(0, end - max(done, first_wanted)),
            begins=done == 0,
        )

    def reply(self, results: list[Result]) -> Reply:
        """Its last positions, laid out for the wire.

        Raises:
            CodecOverflow: a result that the codec cannot hold.
        """
        hidden = torch.cat([result.hidden for result in results])  # (reply, width)
        largest = np.concatenate([result.largest for result in results])  # (reply,)
        encoded = codecs.encode(hidden, self.frame.codec, largest)
        return Reply(encoded, sum(result.micros for result in results))

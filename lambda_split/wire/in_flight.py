"""What a device has sent and not been answered yet, in order. No I/O."""

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import Generic, TypeVar

from lambda_split.errors import RequestError, SequenceBroken
from lambda_split.wire.frames import MAX_U32
from lambda_split.wire.messages import ErrorMessage

__all__ = ["InFlight", "Rejected"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Rejected:
    """The server rejected one forward; the session goes on as if it had not been sent."""

    sequence: int
    error: RequestError


class InFlight(Generic[_T]):
    """Numbers what is sent, and holds each answer to the oldest that has none.

    What is kept of each is the caller's, to compare the answer with.
    """

    def __init__(self) -> None:
        self._next = 0
        self._waiting: collections.deque[tuple[int, _T]] = collections.deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def next_sequence(self) -> int:
        """The number that :meth:`send` gives next."""
        return self._next

    def send(self, what: _T) -> int:
        """Something is sent; returns its sequence number."""
        sequence = self._next
        self._waiting.append((sequence, what))
        self._next = (self._next + 1) & MAX_U32
        return sequence

    @property
    def oldest(self) -> _T:
        """What waits for its answer longest.

        Raises:
            IndexError: nothing does.
        """
        return self._waiting[0][1]

    def check(self, sequence: int) -> None:
        """See whether an answer is the oldest one's.

        Raises:
            SequenceBroken: it is another's, or nothing waits.
        """
        expected = self._waiting[0][0] if self._waiting else self._next
        if not self._waiting or sequence != expected:
            raise SequenceBroken(sequence, expected)

    def answered(self) -> None:
        """The oldest has its answer."""
        self._waiting.popleft()

    def failed(self, message: ErrorMessage) -> Rejected:
        """An error came in.

        Returns:
            The rejection of the oldest.

        Raises:
            WireError: the error that the message carries, where it ends the connection.
            SequenceBroken: it answers something else than the oldest.
        """
        error = message.to_error()
        if message.sequence is None or not isinstance(error, RequestError):
            raise error
        self.check(message.sequence)
        self.answered()
        return Rejected(message.sequence, error)

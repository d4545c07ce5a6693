"""What a scheduler and an engine say to each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Engine", "Outcome", "Piece", "PoolUse", "Result", "SessionCache", "Stepping", "Work"]


@dataclass(frozen=True, eq=False, slots=True)
class SessionCache:
    """A session's place in an engine: the handle of its key-value cache. Equal only to itself.

    Attributes:
        layers: The layers that its chunks run through.
        max_positions: Positions that it may hold.
    """

    layers: range
    max_positions: int


@dataclass(frozen=True, slots=True)
class Work:
    """A forward, or a piece of one, to run.

    Attributes:
        session: Whose it is.
        start: Position of its first token.
        hidden: (tokens, width), floating-point, on the host.
        reply: How many of its last positions are wanted.
        begins: It is the first piece of its forward: the session's cache is cut back to ``start``
            first. Other pieces continue the one before.
    """

    session: SessionCache
    start: int
    hidden: torch.Tensor
    reply: int
    begins: bool = True

    @property
    def tokens(self) -> int:
        """Its positions."""
        return self.hidden.shape[0]

    @property
    def end(self) -> int:
        """The position after its last token."""
        return self.start + self.tokens


@dataclass(frozen=True, slots=True)
class Result:
    """What came out.

    Attributes:
        hidden: (reply, width), floating-point, on the host.
        largest: float32 (reply,), the largest magnitude of each of its rows.
        micros: Compute time of the step that the work was part of, in microseconds.
    """

    hidden: torch.Tensor
    largest: npt.NDArray[np.float32]
    micros: int


Outcome = Result | Exception


@dataclass(frozen=True, slots=True)
class PoolUse:
    """How full the memory for keys and values is.

    Attributes:
        used_blocks: Blocks that sessions hold.
        total_blocks: All there are.
        block_positions: Positions of one block.
    """

    used_blocks: int
    total_blocks: int
    block_positions: int


class Piece(Protocol):
    """What a step runs of a session: a :class:`Work`, or what another kind of model calls so."""

    @property
    def session(self) -> SessionCache:
        """Whose it is."""
        ...

    @property
    def tokens(self) -> int:
        """Its positions."""
        ...

    @property
    def end(self) -> int:
        """The position after its last."""
        ...


_PieceT_contra = TypeVar("_PieceT_contra", bound=Piece, contravariant=True)
_ResultT_co = TypeVar("_ResultT_co", covariant=True)


class Stepping(Protocol[_PieceT_contra, _ResultT_co]):
    """What a scheduler needs. All calls but :meth:`interrupt` come from one thread."""

    def reserve(self, session: SessionCache, end: int) -> bool:
        """Take memory for the positions before ``end``; False where there is not enough.

        A work runs only after it was reserved for.
        """
        ...

    def step(self, batch: Sequence[_PieceT_contra]) -> Iterator[_ResultT_co | Exception]:
        """Run works of different sessions, at most one each.

        Returns:
            For each work, in order, its result or the exception that it met. A forward that failed
            leaves its session as it was before its first piece, and the others untouched.
        """
        ...

    def revert(self, session: SessionCache) -> None:
        """Take back the session's last forward, as far as it has run."""
        ...

    def close(self, session: SessionCache) -> None:
        """Free a session's memory; closing twice is harmless."""
        ...

    def interrupt(self) -> None:
        """From any thread: end a running step early, its works fail with ServerDraining.

        The engine runs nothing any more after that.
        """
        ...

    @property
    def open_sessions(self) -> int:
        """Sessions that hold memory; from any thread."""
        ...

    @property
    def pool_use(self) -> PoolUse:
        """How full the memory for keys and values is."""
        ...


class Engine(Stepping[Work, Result], Protocol):
    """An engine of decoder layers.

    Attributes:
        width: Hidden size.
        dtype: What the trunk computes in; hidden states are rounded to it on the way in.
    """

    width: int
    dtype: torch.dtype

    def open(self, layers: range, max_positions: int, expected: int = 0) -> SessionCache:
        """Make room for a session.

        Args:
            layers: A sub-range of the layers loaded.
            max_positions: The most positions that it will hold.
            expected: Positions that are about to come (a replay): room for them is taken now, and
                stays until they have come.

        Raises:
            CapacityRefused: too many sessions are open, or there is no memory for ``expected``
                positions and one more.
            SplitImpossible: not all of ``layers`` are loaded.
        """
        ...

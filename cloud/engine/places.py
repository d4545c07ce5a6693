"""What one session holds in the pool, and how its last forward is taken back."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cloud.engine.contract import SessionCache
from cloud.engine.kv_pool import KVPool
from lambda_split.errors import PositionGap

__all__ = ["Place"]


@dataclass(frozen=True, slots=True)
class _Piece:
    """What a piece found: enough to put it back."""

    length: int
    slots: torch.Tensor  # those that it overwrites, int64 (n,)
    keys: tuple[torch.Tensor, ...]  # for each layer (kv_heads, n, head_dim)
    values: tuple[torch.Tensor, ...]


class Place:
    """A session's blocks, how many positions are valid in them, and what undoing needs.

    A rejected forward leaves its session as it was. Where it only appends, forgetting the new
    positions does that; where it rewrites some (speculative decoding, an edited chat), what it
    overwrites is kept aside until the next forward begins: at most the forward's own size.

    Attributes:
        session: Whose it is.
        length: Positions that are valid.
        held: Blocks in the order of their positions.
    """

    def __init__(self, session: SessionCache, pool: KVPool, expected: int = 0) -> None:
        self.session = session
        # A replay comes in several forwards: the room for it stays until all of it has come.
        self._expected = expected
        self.length = 0
        self.held: list[int] = []
        self._pool = pool
        self._kept = 0  # valid positions before the forward that is running or was last
        self._pieces: list[_Piece] = []

    def reserve(self, end: int) -> bool:
        """Hold blocks for the positions before ``end``; False, unchanged, where there are none."""
        return self._pool.blocks.extend(self.held, self._pool.blocks_for(end))

    def begin(self, start: int) -> None:
        """A forward begins: what was before it is settled, and what is from ``start`` on is cut.

        Raises:
            PositionGap: fewer positions than ``start`` are valid.
        """
        if start > self.length:
            raise PositionGap(start, self.length)
        self._kept = self.length
        self._pieces = []
        self.length = start

    def advance(self, end: int) -> torch.Tensor:
        """A piece of the forward will write the positions up to ``end``, which are reserved.

        Returns:
            Their slots, int64 (end − length,), on the host.
        """
        slots = self._pool.slots(self.held, self.length, end)
        overwritten = slots[: max(0, min(end, self._kept) - self.length)]
        self._pieces.append(self._save(overwritten))
        self.length = end
        return slots

    def undo_piece(self) -> None:
        """Take the last piece back, also one that stopped half way."""
        piece = self._pieces.pop()
        self.length = piece.length
        if not len(piece.slots):
            return
        saved = zip(self.session.layers, piece.keys, piece.values, strict=True)
        for layer, keys, values in saved:
            self._pool.write(layer, piece.slots.to(keys.device), keys, values)

    def undo_forward(self) -> None:
        """Take all pieces back since :meth:`begin`."""
        while self._pieces:
            self.undo_piece()
        self.length = self._kept

    def trim(self, end: int) -> None:
        """Give back blocks beyond ``end`` that hold nothing, and wait for nothing expected."""
        if self._kept >= self._expected:
            self._expected = 0
        needed = self._pool.blocks_for(max(self.length, self._kept, end, self._expected))
        surplus = self.held[needed:]
        del self.held[needed:]
        self._pool.blocks.release(surplus)

    def release(self) -> None:
        """Give all blocks back."""
        self._pool.blocks.release(self.held)
        self.held = []

    def _save(self, slots: torch.Tensor) -> _Piece:
        if not len(slots):
            return _Piece(self.length, slots, (), ())
        saved = [
            self._pool.read(layer, slots.to(self._pool.geometry.device_of(layer)))
            for layer in self.session.layers
        ]
        keys, values = zip(*saved, strict=True)
        return _Piece(self.length, slots, keys, values)

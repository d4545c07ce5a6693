"""Which blocks of the key-value pool are whose: bookkeeping, no tensors.

A block is a fixed number of positions in every loaded layer. Sessions grow block by block, so that
none holds much more than it uses. Attention on a CPU reads a session's keys without copying where
its blocks lie side by side, so each session grows into a stretch of its own as long as there is
one: the pool is thought of as lanes, and a session begins in the first lane that is wholly free.
Low lanes first, so that memory which was never needed is never touched.
"""

from __future__ import annotations

import numpy as np

__all__ = ["BlockPool"]


class BlockPool:
    """Hands out block numbers.

    Args:
        blocks: How many there are.
        lane: Blocks of a lane, at least 1; best a session's usual length.
    """

    def __init__(self, blocks: int, lane: int) -> None:
        self._free = np.ones(blocks, dtype=bool)
        self._free_count = blocks
        self._lane = max(1, lane)

    @property
    def total(self) -> int:
        """All blocks."""
        return len(self._free)

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return self._free_count

    def extend(self, held: list[int], wanted: int) -> bool:
        """Append blocks to a session's list until it has ``wanted``; all of them or none.

        Args:
            held: The session's blocks in the order of their positions; extended in place.
            wanted: How many it should have.

        Returns:
            False, and nothing has changed, where there are not enough.
        """
        missing = wanted - len(held)
        if missing <= 0:
            return True
        if missing > self._free_count:
            return False
        for _ in range(missing):
            follower = held[-1] + 1 if held else len(self._free)
            is_free = follower < len(self._free) and self._free[follower]
            block = follower if is_free else self._new_place()
            self._free[block] = False
            self._free_count -= 1
            held.append(block)
        return True

    def release(self, blocks: list[int]) -> None:
        """Take blocks back."""
        self._free[blocks] = True
        self._free_count += len(blocks)

    def _new_place(self) -> int:
        """Where a session that cannot go on where it is goes on: there is a free block."""
        lanes = len(self._free) // self._lane
        whole = self._free[: lanes * self._lane].reshape(lanes, self._lane).all(axis=1)
        if whole.any():
            return int(whole.argmax()) * self._lane
        # The longest free stretch, the first of several: from the borders between free and taken.
        padded = np.concatenate(([False], self._free, [False])).astype(np.int8)
        borders = np.flatnonzero(np.diff(padded))
        starts, ends = borders[::2], borders[1::2]
        return int(starts[(ends - starts).argmax()])

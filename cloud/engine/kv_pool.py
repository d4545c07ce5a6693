"""The memory for keys and values: one pool of fixed size for all sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cloud.engine.blocks import BlockPool
from cloud.engine.contract import PoolUse

__all__ = ["KVGeometry", "KVPool"]


@dataclass(frozen=True, kw_only=True)
class KVGeometry:
    """What one position costs.

    Attributes:
        layers: The layers loaded.
        kv_heads: Key-value heads of each.
        head_dim: Width of a head.
        dtype: Of keys and values.
        devices: Where each layer's are kept: one for all, or one for each layer.
    """

    layers: range
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    devices: Sequence[torch.device]

    @property
    def position_bytes(self) -> int:
        """Keys and values of one position in all layers, in bytes."""
        return 2 * len(self.layers) * self.kv_heads * self.head_dim * self.dtype.itemsize

    def device_of(self, layer: int) -> torch.device:
        """Where a layer's keys and values are."""
        several = len(self.devices) > 1
        return self.devices[layer - self.layers.start if several else 0]


class KVPool:
    """Keys and values of all sessions in all layers.

    Args:
        geometry: What a position costs.
        block_positions: Positions of a block.
        blocks: How many blocks.
        lane: See :class:`~cloud.engine.blocks.BlockPool`.

    Attributes:
        blocks: Who holds which block. Position *p* of a session is in slot
            ``held[p // block_positions] * block_positions + p % block_positions``.
        spare_block: A block that no session ever holds, for rows that belong to nobody.
    """

    def __init__(
        self, geometry: KVGeometry, *, block_positions: int, blocks: int, lane: int
    ) -> None:
        self.geometry = geometry
        self.block_positions = block_positions
        self.blocks = BlockPool(blocks, lane)
        self.spare_block = blocks
        slots = (blocks + 1) * block_positions
        # On a CPU each head's keys lie together: attention goes head by head, and rows of one head
        # that were kilobytes apart would each cost it a page. A GPU's kernel wants whole positions.
        self._heads_first = geometry.devices[0].type == "cpu"
        sizes = (geometry.kv_heads, slots) if self._heads_first else (slots, geometry.kv_heads)
        # Not zeroed: untouched memory of a CPU costs nothing, and only slots that were written
        # are ever read.
        self._keys, self._values = (
            {
                layer: torch.empty(
                    (*sizes, geometry.head_dim),
                    dtype=geometry.dtype,
                    device=geometry.device_of(layer),
                )
                for layer in geometry.layers
            }
            for _ in range(2)
        )

    @property
    def positions(self) -> int:
        """Positions that one session could hold if it had everything."""
        return self.blocks.total * self.block_positions

    @property
    def use(self) -> PoolUse:
        """How full it is."""
        return PoolUse(
            self.blocks.total - self.blocks.free, self.blocks.total, self.block_positions
        )

    def blocks_for(self, positions: int) -> int:
        """Blocks that hold so many positions."""
        return -(-positions // self.block_positions)

    def slots(self, held: Sequence[int], start: int, end: int) -> torch.Tensor:
        """Slots of a session's positions ``start`` … ``end`` − 1: int64 (end − start,), host."""
        first, last = start // self.block_positions, self.blocks_for(end)
        offsets = torch.arange(self.block_positions)
        numbers = torch.tensor(held[first:last], dtype=torch.int64)
        # (blocks, 1) + (block_positions,) -> (blocks, block_positions) -> all their slots
        slots = (numbers[:, None] * self.block_positions + offsets).flatten()
        skipped = first * self.block_positions
        return slots[start - skipped : end - skipped]

    def runs(self, held: Sequence[int], start: int, end: int) -> tuple[range, ...]:
        """The same as stretches of neighbouring slots, as few as there are."""
        size = self.block_positions
        found: list[range] = []
        position = start
        while position < end:
            slot = held[position // size] * size + position % size
            taken = min(size - position % size, end - position)
            if found and found[-1].stop == slot:
                found[-1] = range(found[-1].start, slot + taken)
            else:
                found.append(range(slot, slot + taken))
            position += taken
        return tuple(found)

    def write(
        self, layer: int, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Store keys and values, each (kv_heads, n, head_dim), into slots, int64 (n,)."""
        for pool, rows in ((self._keys[layer], keys), (self._values[layer], values)):
            rows = rows.to(pool.dtype)  # noqa: PLW2901 - the same rows
            if self._heads_first:
                pool.index_copy_(1, slots, rows)
            else:
                pool.index_copy_(0, slots, rows.transpose(0, 1))

    def read(self, layer: int, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of what is in slots, int64 (n,): keys and values, each (kv_heads, n, head_dim)."""
        if self._heads_first:
            return self._keys[layer][:, slots], self._values[layer][:, slots]
        return (
            self._keys[layer][slots].transpose(0, 1),
            self._values[layer][slots].transpose(0, 1),
        )

    def view(self, layer: int, runs: Sequence[range]) -> tuple[torch.Tensor, torch.Tensor]:
        """What is in neighbouring slots: keys and values, each (1, kv_heads, K, head_dim).

        One run is not copied; several are joined.
        """
        dimension = 1 if self._heads_first else 0
        found = []
        for pool in (self._keys[layer], self._values[layer]):
            parts = [pool.narrow(dimension, run.start, len(run)) for run in runs]
            joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=dimension)
            found.append((joined if self._heads_first else joined.transpose(0, 1))[None])
        return found[0], found[1]

    def pages(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Everything, block by block: each (blocks, block_positions, kv_heads, head_dim)."""
        found = []
        for pool in (self._keys[layer], self._values[layer]):
            # (slots, kv_heads, head_dim) -> (blocks, block_positions, kv_heads, head_dim)
            whole = pool.transpose(0, 1) if self._heads_first else pool
            found.append(whole.reshape(-1, self.block_positions, *whole.shape[1:]))
        return found[0], found[1]

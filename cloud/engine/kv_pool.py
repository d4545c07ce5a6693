"""The memory for keys and values: one pool of fixed size for all sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cloud.engine.blocks import BlockPool
from cloud.engine.contract import PoolUse

__all__ = ["KVGeometry", "KVPool", "kv_dtype"]


def kv_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """What keys and values are kept in.

    The trunk's dtype; on a CPU float32 whatever the weights are. There the attention of a single
    token in bfloat16 is an order of magnitude slower than in float32 (PyTorch 2.13, 200 positions,
    16 heads of 128: 0.54 against 0.04 ms), which outweighs twice the memory.
    """
    return torch.float32 if device.type == "cpu" else dtype


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
        blocks: Who holds which block.
        keys: For each layer (all slots, kv_heads, head_dim). Position *p* of a session is in slot
            ``held[p // block_positions] * block_positions + p % block_positions``.
        values: As ``keys``.
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
        shape = (slots, geometry.kv_heads, geometry.head_dim)
        # Not zeroed: untouched memory of a CPU costs nothing, and only slots that were written
        # are ever read.
        self.keys = {
            layer: torch.empty(shape, dtype=geometry.dtype, device=geometry.device_of(layer))
            for layer in geometry.layers
        }
        self.values = {layer: torch.empty_like(keys) for layer, keys in self.keys.items()}

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

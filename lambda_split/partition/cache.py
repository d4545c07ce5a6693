"""Key-value caches that the library's attention modules write into."""

from __future__ import annotations

from typing import Protocol

import torch

from lambda_split.errors import PositionBeyondEnd, PositionGap

__all__ = ["GrowingKVCache", "KVCache"]

_FIRST_CAPACITY = (
    256  # positions; small enough for many short sessions, few doublings to a long one
)


class KVCache(Protocol):
    """What attention modules call; any object with this method can be a cache."""

    def update(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append a chunk and return everything that its queries may attend to.

        Args:
            key: (B, kv_heads, T, head_dim).
            value: As ``key``.
            layer_idx: The layer's number in the whole model.
            *args: Ignored; the library passes more than is needed.
            **kwargs: Ignored.

        Returns:
            Keys and values, each (B, kv_heads, past + T, head_dim).
        """
        ...


class _LayerBuffer:
    """Keys and values of one layer: (B, kv_heads, capacity, head_dim), ``length`` of them valid."""

    __slots__ = ("keys", "length", "values")

    def __init__(self, key: torch.Tensor, value: torch.Tensor, capacity: int) -> None:
        self.keys = key.new_empty((*key.shape[:2], capacity, key.shape[3]))
        self.values = value.new_empty((*value.shape[:2], capacity, value.shape[3]))
        self.length = 0

    def grow(self, capacity: int) -> None:
        keys = self.keys.new_empty((*self.keys.shape[:2], capacity, self.keys.shape[3]))
        values = self.values.new_empty((*self.values.shape[:2], capacity, self.values.shape[3]))
        keys[:, :, : self.length] = self.keys[:, :, : self.length]
        values[:, :, : self.length] = self.values[:, :, : self.length]
        self.keys, self.values = keys, values


class GrowingKVCache:
    """Appends in place to buffers that double when they are full.

    Appending costs as much as the chunk is long, however long the past is. Buffers appear when a
    layer first writes, so shapes, dtype and device are the attention's own.

    Use it either always or never inside ``torch.inference_mode``: tensors made there cannot be
    written outside.

    Args:
        max_positions: Capacity never grows beyond this.
        layers: The layers that will write; :attr:`length` counts what all of them have.
    """

    def __init__(self, max_positions: int, layers: range) -> None:
        self.max_positions = max_positions
        self.layers = layers
        self._buffers: dict[int, _LayerBuffer] = {}

    @property
    def length(self) -> int:
        """Positions that every layer holds."""
        if len(self._buffers) < len(self.layers):
            return 0
        return min((buffer.length for buffer in self._buffers.values()), default=0)

    @property
    def nbytes(self) -> int:
        """Memory of all buffers, in bytes."""
        return sum(b.keys.nbytes + b.values.nbytes for b in self._buffers.values())

    def update(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append a chunk; see :meth:`KVCache.update`. The returned tensors are views.

        Raises:
            PositionBeyondEnd: the chunk ends after ``max_positions``.
        """
        del args, kwargs
        buffer = self._buffers.get(layer_idx)
        start = 0 if buffer is None else buffer.length
        end = start + key.shape[2]
        if end > self.max_positions:
            raise PositionBeyondEnd(end, self.max_positions)
        if buffer is None:
            capacity = min(self.max_positions, max(_FIRST_CAPACITY, end))
            buffer = self._buffers[layer_idx] = _LayerBuffer(key, value, capacity)
        elif end > buffer.keys.shape[2]:
            buffer.grow(min(self.max_positions, max(2 * buffer.keys.shape[2], end)))
        buffer.keys[:, :, start:end] = key
        buffer.values[:, :, start:end] = value
        buffer.length = end
        return buffer.keys[:, :, :end], buffer.values[:, :, :end]

    def truncate(self, length: int) -> None:
        """Forget all positions from ``length`` on; layers that are ahead of others fall in line.

        Raises:
            PositionGap: fewer positions than ``length`` are held.
        """
        if self.layers and not 0 <= length <= self.length:
            raise PositionGap(length, self.length)
        for buffer in self._buffers.values():
            buffer.length = length

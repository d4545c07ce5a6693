"""The key-value cache of one session, whose last chunk can be taken back."""

from __future__ import annotations

import threading

import torch

from lambda_split.errors import ServerDraining
from lambda_split.partition import GrowingKVCache

__all__ = ["RevertibleKVCache"]


class RevertibleKVCache(GrowingKVCache):
    """A growing cache that can be put back to what it was before the last chunk.

    A rejected forward leaves its session as it was. Where a chunk only appends, shortening does
    that; where it rewrites positions (speculative decoding, an edited chat), what it overwrites is
    kept until the next chunk begins: at most the chunk's own size.

    Args:
        max_positions: Capacity never grows beyond this.
        layers: The layers that will write.
        interrupted: Once it is set, the next layer that writes stops the chunk.
    """

    def __init__(
        self, max_positions: int, layers: range, interrupted: threading.Event | None = None
    ) -> None:
        super().__init__(max_positions, layers)
        self._interrupted = interrupted or threading.Event()
        self._start = 0
        self._length_before = 0
        self._overwritten: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def begin(self, start: int) -> None:
        """Cut back to ``start``; the next updates append from there.

        Raises:
            PositionGap: fewer positions than ``start`` are held.
        """
        before = self.length
        self.truncate(start)
        self._start = start
        self._length_before = before
        self._overwritten = {}

    def update(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append a chunk; see :meth:`GrowingKVCache.update`.

        Raises:
            ServerDraining: the chunk is interrupted.
        """
        if self._interrupted.is_set():
            raise ServerDraining
        buffer = self._buffers.get(layer_idx)
        if buffer is not None:
            end = min(self._start + key.shape[2], self._length_before)
            if self._start < end:
                self._overwritten[layer_idx] = (
                    buffer.keys[:, :, self._start : end].clone(),
                    buffer.values[:, :, self._start : end].clone(),
                )
        return super().update(key, value, layer_idx, *args, **kwargs)

    def revert(self) -> None:
        """Take back the chunk since the last :meth:`begin`, also one that stopped half way."""
        for layer, (keys, values) in self._overwritten.items():
            buffer = self._buffers[layer]
            end = self._start + keys.shape[2]  # positions after it were left alone
            buffer.keys[:, :, self._start : end] = keys
            buffer.values[:, :, self._start : end] = values
        for buffer in self._buffers.values():
            buffer.length = self._length_before
        self._overwritten = {}

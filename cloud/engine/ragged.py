"""A ragged batch: the rows of several sessions, one after another, each with its own past.

Linear layers see one long sequence. Attention must not: :class:`RaggedBatch` puts each session's
keys and values into its slots of the pool, and lets each session's queries see its own slots only.
It enters the library's layers at the two places where they ask: as the cache (``update``) and,
through the attention-function registry, as the attention (:func:`register`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import nn
from transformers import AttentionInterface

from cloud.engine.kv_pool import KVPool
from lambda_split.errors import ServerDraining

__all__ = ["RAGGED", "Attend", "RaggedBatch", "Segment", "register"]

RAGGED = "lambda_split_ragged"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Segment:
    """One session's rows in a batch.

    Attributes:
        rows: Which rows of the batch.
        start: Position of the first of them; as many positions of the session are before it.
        held: The session's blocks.
    """

    rows: range
    start: int
    held: Sequence[int]

    @property
    def end(self) -> int:
        """The position after the last row's: how many keys the session has."""
        return self.start + len(self.rows)


class Attend(Protocol):
    """How the queries of a batch see what is in the pool."""

    def __call__(
        self,
        batch: RaggedBatch,
        layer: int,
        query: torch.Tensor,
        *,
        scale: float,
        softcap: float | None,
    ) -> torch.Tensor:
        """Attend.

        Args:
            batch: Whose rows the queries are; its keys are in the pool already.
            layer: The layer's number in the whole model.
            query: (1, heads, T, head_dim), in the trunk's dtype.
            scale: What scores are multiplied with.
            softcap: Scores are squashed to ± this by tanh; None leaves them.

        Returns:
            (1, T, heads, head_dim), dtype as ``query``.
        """
        ...


class RaggedBatch:
    """What the layers are given instead of a cache.

    Args:
        pool: Where keys and values are.
        segments: The sessions' rows, in order and without gaps.
        slots: int64 (T,), where each row's key and value go, on the host.
        windows: Each layer's sliding window, or None.
        attend: The attention.
        interrupted: Once it is set, the next layer stops the batch.
    """

    def __init__(
        self,
        pool: KVPool,
        segments: Sequence[Segment],
        slots: torch.Tensor,
        *,
        windows: Mapping[int, int | None],
        attend: Attend,
        interrupted: threading.Event,
    ) -> None:
        self.pool = pool
        self.segments = segments
        self.windows = windows
        self.attend = attend
        self._interrupted = interrupted
        self._slots = {slots.device: slots}
        self._made: dict[object, object] = {}

    def slots_on(self, device: torch.device) -> torch.Tensor:
        """The rows' slots there; copied once."""
        if device not in self._slots:
            self._slots[device] = next(iter(self._slots.values())).to(device, non_blocking=True)
        return self._slots[device]

    def once(self, key: object, make: Callable[[], _T]) -> _T:
        """What all layers share, such as masks: made by the first that asks."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]  # type: ignore[return-value]  # the key stands for its type

    def update(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the rows' keys and values (1, kv_heads, T, head_dim), as a cache does.

        Returns:
            The same; the attention takes what it needs from the pool.

        Raises:
            ServerDraining: the batch is interrupted.
        """
        del args, kwargs
        if self._interrupted.is_set():
            raise ServerDraining
        self.pool.write(layer_idx, self.slots_on(key.device), key[0], value[0])
        return key, value


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    ragged: RaggedBatch,
    scaling: float | None = None,
    softcap: float | None = None,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """What the library's attention modules call; see its ``AttentionInterface``.

    Windows come from the batch and not from ``sliding_window``, which not every family passes.
    """
    del key, value, attention_mask, others
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer: int = module.layer_idx  # type: ignore[assignment]  # nn.Module says Tensor or Module
    return ragged.attend(ragged, layer, query, scale=scale, softcap=softcap), None


def register() -> None:
    """Make the attention known to the library, under the name ``RAGGED``; twice is harmless."""
    AttentionInterface.register(RAGGED, _attention)

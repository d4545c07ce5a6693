"""Attention of a whole ragged batch in one call: flash attention over blocks, on a GPU.

PyTorch's ``torch.nn.attention.varlen`` reads each session's keys from the pool through a table of
its blocks, so nothing is gathered and nothing waits for the host. It cannot cap scores; such layers
go session by session.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from cloud.engine.attention import attend_by_session
from cloud.engine.kv_pool import KVPool
from cloud.engine.ragged import Attend, RaggedBatch, Segment

__all__ = ["PagedAttention", "Tables", "best_attention", "varlen_kernel"]

_logger = logging.getLogger(__name__)
# Called as torch.nn.attention.varlen.varlen_attn is.
Kernel = Callable[..., torch.Tensor]
_TOLERANCE = 0.03  # of values around 1, in bfloat16 with its 8 bits


@dataclass(frozen=True, slots=True)
class Tables:
    """Where each session's keys are, on the device.

    Attributes:
        query_ends: int32 (N + 1,), rows of the batch before each session's, and all of them.
        key_counts: int32 (N,), keys that each session has.
        blocks: int32 (N, most), each session's blocks; what is beyond its keys is not read.
        most_queries: The most rows of a session.
        most_keys: The most keys of a session.
    """

    query_ends: torch.Tensor
    key_counts: torch.Tensor
    blocks: torch.Tensor
    most_queries: int
    most_keys: int

    @classmethod
    def of(cls, segments: Sequence[Segment], pool: KVPool, device: torch.device) -> Tables:
        """The tables of a batch; copied without waiting."""
        ends = [0, *(segment.rows.stop for segment in segments)]
        counts = [segment.end for segment in segments]
        used = [segment.held[: pool.blocks_for(segment.end)] for segment in segments]
        most = max(len(blocks) for blocks in used)
        rows = [[*blocks, *[0] * (most - len(blocks))] for blocks in used]
        return cls(
            _table(ends, device),
            _table(counts, device),
            _table(rows, device),
            most_queries=max(len(segment.rows) for segment in segments),
            most_keys=max(counts),
        )


def _table(values: Sequence[object], device: torch.device) -> torch.Tensor:
    tensor = torch.tensor(values, dtype=torch.int32)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class PagedAttention:
    """An :class:`~cloud.engine.ragged.Attend` that makes one call for all sessions.

    Args:
        kernel: Called as ``torch.nn.attention.varlen.varlen_attn`` is.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def __call__(
        self,
        batch: RaggedBatch,
        layer: int,
        query: torch.Tensor,
        *,
        scale: float,
        softcap: float | None,
    ) -> torch.Tensor:
        """See :class:`~cloud.engine.ragged.Attend`."""
        if softcap is not None:
            return attend_by_session(batch, layer, query, scale=scale, softcap=softcap)
        pool = batch.pool
        device = query.device
        tables = batch.once(
            ("tables", device), lambda: Tables.of(batch.segments, batch.pool, device)
        )
        keys, values = pool.pages(layer)
        window = batch.windows[layer]
        out = self._kernel(
            query[0].transpose(0, 1),  # (1, heads, T, D) -> (T, heads, D)
            keys,
            values,
            tables.query_ends,
            None,
            tables.most_queries,
            tables.most_keys,
            scale=scale,
            # How far back and ahead a query sees, itself not counted; -1 is without end.
            window_size=(-1 if window is None else window - 1, 0),
            enable_gqa=query.shape[1] != keys.shape[2],
            seqused_k=tables.key_counts,
            block_table=tables.blocks,
        )
        return out[None]  # (T, heads, D) -> (1, T, heads, D)


def varlen_kernel() -> Kernel | None:
    """PyTorch's own kernel; None where the installed version has none for blocks."""
    try:
        from torch.nn.attention import varlen
    except ImportError:
        return None
    return cast("Kernel", varlen.varlen_attn)


def best_attention(pool: KVPool, heads: int, kernel: Kernel | None) -> Attend:
    """The fastest attention that computes the right thing here.

    A kernel's support depends on the GPU, the dtype, the width of a head and the length of a
    block, so it is tried on a small batch and compared, rather than looked up. The blocks that the
    trial writes must not be anybody's yet.

    Args:
        pool: What it will read, still empty.
        heads: Query heads.
        kernel: See :func:`varlen_kernel`; session by session where None.
    """
    if kernel is None or _is_host(pool):
        return attend_by_session
    paged = PagedAttention(kernel)
    try:
        error = _difference(pool, heads, paged)
    except Exception as fault:  # noqa: BLE001 - whatever a kernel raises where it is not supported
        _logger.warning("no flash attention over blocks here (%s): session by session", fault)
        return attend_by_session
    if not error <= _TOLERANCE:
        _logger.warning("flash attention over blocks is off by %g: session by session", error)
        return attend_by_session
    return paged


def _is_host(pool: KVPool) -> bool:
    return pool.geometry.devices[0].type == "cpu"


def _difference(pool: KVPool, heads: int, candidate: Attend) -> float:
    """How far a candidate is from the plain computation, at most, on a batch of two sessions."""
    size = pool.block_positions
    blocks = list(range(min(3, pool.blocks.total)))
    # A session in mid-decode and one with a chunk after a past, in blocks out of order.
    segments = [
        Segment(range(1), size // 2, blocks[:1]),
        Segment(range(1, 5), min(size, (len(blocks) - 1) * size - 4), blocks[:0:-1]),
    ][: len(blocks)]
    geometry = pool.geometry
    layer = geometry.layers.start
    device = geometry.device_of(layer)
    generator = torch.Generator().manual_seed(0)

    def random(shape: Sequence[int]) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device, geometry.dtype)

    used = torch.arange(len(blocks) * size, device=device)
    shape = (geometry.kv_heads, len(used), geometry.head_dim)
    pool.write(layer, used, random(shape), random(shape))
    query = random((1, heads, segments[-1].rows.stop, geometry.head_dim))
    found = []
    for attend in (candidate, attend_by_session):
        batch = RaggedBatch(
            pool,
            segments,
            torch.zeros(0, dtype=torch.int64),
            windows=dict.fromkeys(geometry.layers),
            attend=attend,
            interrupted=threading.Event(),
        )
        scale = geometry.head_dim**-0.5
        found.append(attend(batch, layer, query, scale=scale, softcap=None).float())
    return float((found[0] - found[1]).abs().max())

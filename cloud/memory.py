"""How large the pool for keys and values is."""

from __future__ import annotations

import collections
import logging
from dataclasses import dataclass

import psutil
import torch

from cloud.engine import KVGeometry, KVPool
from cloud.options import MemoryShare
from lambda_split.errors import UsageError

__all__ = ["KVSettings", "free_memory", "make_pool"]

_logger = logging.getLogger(__name__)
# Of what is free once the weights are loaded. A GPU has little else to do; a computer has.
_SHARE = {"cpu": MemoryShare(50), "cuda": MemoryShare(85)}
# Flash attention over blocks wants its blocks this long; without it short ones waste less.
_BLOCK_POSITIONS = {"cpu": 16, "cuda": 256}


@dataclass(frozen=True, kw_only=True)
class KVSettings:
    """What the pool is made for.

    Attributes:
        max_sessions: The most sessions at a time.
        model_positions: The most positions that the model can do.
        max_positions: The most positions of a session; as many as fit, at most the model's, where
            None.
        memory: For keys and values: bytes, or a share of what is free; the usual share where None.
        block_positions: Positions of a block; what suits the device where None.
    """

    max_sessions: int
    model_positions: int
    max_positions: int | None = None
    memory: int | MemoryShare | None = None
    block_positions: int | None = None


def make_pool(geometry: KVGeometry, settings: KVSettings) -> tuple[KVPool, int]:
    """Allocate the pool, no larger than all sessions together could use.

    Returns:
        The pool, and the most positions of a session: one session always fits.

    Raises:
        UsageError: more positions than the model has, or than the memory holds.
    """
    device = geometry.devices[0]
    size = settings.block_positions or _BLOCK_POSITIONS[device.type]
    wanted = settings.max_positions or settings.model_positions
    if wanted > settings.model_positions:
        raise UsageError(
            f"--max-positions {wanted}: the model has {settings.model_positions} positions"
        )
    memory = settings.memory or _SHARE[device.type]
    if isinstance(memory, MemoryShare):
        memory = _room(geometry, memory)
    blocks = memory // (geometry.position_bytes * size)
    longest = blocks * size
    if longest < wanted:
        if settings.max_positions is not None or settings.memory is not None or longest == 0:
            raise UsageError(
                f"a session of {wanted} positions needs "
                f"{geometry.position_bytes * wanted / 1e9:.3g} GB for keys and values, there are "
                f"{memory / 1e9:.3g}: give it more --kv-memory, or fewer --max-positions"
            )
        _logger.warning("the free memory limits sessions to %d positions", longest)
        wanted = longest
    blocks = min(blocks, settings.max_sessions * -(-wanted // size))
    lane = max(1, blocks // settings.max_sessions)
    pool = KVPool(geometry, block_positions=size, blocks=blocks, lane=lane)
    _logger.info(
        "keys and values: %.3g GB, %d blocks of %d positions",
        blocks * size * geometry.position_bytes / 1e9,
        blocks,
        size,
    )
    return pool, wanted


def _room(geometry: KVGeometry, share: MemoryShare) -> int:
    """Bytes for the whole pool, so that each device has room for its layers' part of it."""
    layers = collections.Counter(geometry.device_of(layer) for layer in geometry.layers)
    return min(
        int(free_memory(device) * share.percent / 100 * len(geometry.layers) / count)
        for device, count in layers.items()
    )


def free_memory(device: torch.device) -> int:
    """Bytes that could be taken on a device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)

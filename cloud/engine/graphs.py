"""Decode steps as CUDA graphs: recorded once, replayed without Python and without launches.

A step of one token for each session has the same shape whatever the tokens are, so its kernels can
be recorded for a few numbers of sessions and replayed on new inputs. Launching them one by one
takes several times as long as a small batch takes to compute. A smaller number of sessions runs
in the next larger recording, with rows that belong to nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from cloud.engine.kv_pool import KVPool
from cloud.engine.paged import Tables
from cloud.engine.ragged import RaggedBatch, Segment

__all__ = ["DecodeGraphs", "Recorder", "Replay", "cuda_recorder"]

_logger = logging.getLogger(__name__)
_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)
# Relative to the largest value: the kernels are the same, the order of their sums need not be.
_TOLERANCE = 0.02


class Replay(Protocol):
    """A recorded function: reads its inputs where they were, and writes where it wrote."""

    def __call__(self) -> None:
        """Run it again."""


Recorder = Callable[[Callable[[], torch.Tensor]], tuple[torch.Tensor, Replay]]
# Runs layers: hidden (N, W), positions int64 (N,), the batch -> (N, W).
Layers = Callable[[torch.Tensor, torch.Tensor, RaggedBatch], torch.Tensor]


def cuda_recorder(function: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Replay]:
    """Record what a function does on the current CUDA device.

    Returns:
        Where its output is after each replay, and the replay.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no annotation
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):  # lazily made workspaces must exist before the recording
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = function()
    return output, graph.replay


@dataclass(frozen=True, slots=True)
class _Recording:
    """Fixed inputs, the fixed output, and what computes it."""

    hidden: torch.Tensor  # (N, W)
    positions: torch.Tensor  # int64 (N,)
    slots: torch.Tensor  # int64 (N,)
    tables: Tables
    output: torch.Tensor  # (N, W)
    replay: Replay


class DecodeGraphs:
    """Recordings for one range of layers, made when a number of sessions is first met.

    The first result of each recording is compared with the same step run plainly; where recording
    fails or differs, steps run plainly from then on.

    Args:
        pool: Where keys and values are.
        most_blocks: The most blocks of a session.
        make_batch: Makes the batch that the layers are given, from segments and slots.
        layers: Runs the layers.
        record: See :func:`cuda_recorder`.
    """

    def __init__(
        self,
        pool: KVPool,
        *,
        most_blocks: int,
        make_batch: Callable[[Sequence[Segment], torch.Tensor], RaggedBatch],
        layers: Layers,
        record: Recorder = cuda_recorder,
    ) -> None:
        self._pool = pool
        self._most_blocks = most_blocks
        self._make_batch = make_batch
        self._layers = layers
        self._record = record
        self._recordings: dict[int, _Recording] = {}
        self._broken = False

    def run(
        self,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        segments: Sequence[Segment],
    ) -> torch.Tensor | None:
        """Run a step of one token for each session.

        Args:
            hidden: (n, W), on the device.
            positions: int64 (n,), host.
            slots: int64 (n,), host.
            segments: The sessions, one row each.

        Returns:
            (n, W), valid until the next call; None where the step must run plainly.
        """
        count = len(segments)
        size = next((size for size in _SIZES if size >= count), None)
        if self._broken or size is None:
            return None
        recording = self._recordings.get(size)
        if recording is not None:
            self._fill(recording, hidden, positions, slots, segments)
            recording.replay()
            return recording.output[:count]
        try:
            return self._first(size, hidden, positions, slots, segments)
        except Exception:
            _logger.warning("steps cannot be recorded: they run plainly", exc_info=True)
            self._broken = True
            return None

    def _first(
        self,
        size: int,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        segments: Sequence[Segment],
    ) -> torch.Tensor:
        """Record, and return what the same step gives plainly once both agree."""
        recording = self._new(size, hidden)
        self._fill(recording, hidden, positions, slots, segments)
        batch = self._batch(recording)
        output, replay = self._record(
            lambda: self._layers(recording.hidden, recording.positions, batch)
        )
        recording = _Recording(
            recording.hidden, recording.positions, recording.slots, recording.tables, output, replay
        )
        replay()
        count = len(segments)
        plain = self._layers(hidden, positions.to(hidden.device), self._make_batch(segments, slots))
        scale = plain.float().abs().max().clamp(min=1e-6)
        error = float((output[:count] - plain).float().abs().max() / scale)
        if not error <= _TOLERANCE:
            raise ArithmeticError(f"a recorded step is off by {error:g}")
        self._recordings[size] = recording
        return plain

    def _new(self, size: int, like: torch.Tensor) -> _Recording:
        device = like.device

        def ints(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        tables = Tables(
            query_ends=torch.arange(size + 1, dtype=torch.int32, device=device),
            key_counts=ints(size),
            blocks=ints(size, self._most_blocks),
            most_queries=1,
            most_keys=self._most_blocks * self._pool.block_positions,
        )
        return _Recording(
            like.new_zeros(size, like.shape[1]),
            ints(size, dtype=torch.int64),
            ints(size, dtype=torch.int64),
            tables,
            like,
            lambda: None,
        )

    def _batch(self, recording: _Recording) -> RaggedBatch:
        batch = self._make_batch((), recording.slots)
        batch.once(("tables", recording.hidden.device), lambda: recording.tables)
        return batch

    def _fill(
        self,
        recording: _Recording,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        segments: Sequence[Segment],
    ) -> None:
        """Copy the step's inputs to where the recording reads them; nobody's rows at the end."""
        count, size = len(segments), len(recording.hidden)
        spare = size - count
        counts = torch.tensor([segment.end for segment in segments] + [1] * spare)
        blocks = torch.zeros((size, self._most_blocks), dtype=torch.int32)
        for row, segment in enumerate(segments):
            held = segment.held[: self._most_blocks]
            blocks[row, : len(held)] = torch.tensor(held, dtype=torch.int32)
        blocks[count:, 0] = self._pool.spare_block
        # Nobody's rows may all write to one slot: what is there is never used.
        spare_slots = torch.full((spare,), self._pool.spare_block * self._pool.block_positions)
        recording.hidden[:count].copy_(hidden)
        recording.positions.copy_(
            torch.cat([positions, positions.new_zeros(spare)]), non_blocking=True
        )
        recording.slots.copy_(torch.cat([slots, spare_slots]), non_blocking=True)
        recording.tables.key_counts.copy_(counts, non_blocking=True)
        recording.tables.blocks.copy_(blocks, non_blocking=True)

"""Continuous batching: each layer runs once for the rows of all sessions in a step."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from cloud.codecs import largest_magnitudes
from cloud.engine.attention import attend_by_session
from cloud.engine.contract import Outcome, PoolUse, Result, SessionCache, Work
from cloud.engine.graphs import DecodeGraphs, Recorder
from cloud.engine.kv_pool import KVPool
from cloud.engine.places import Place
from cloud.engine.ragged import RAGGED, Attend, RaggedBatch, Segment, register
from lambda_split.counting import counted
from lambda_split.errors import (
    CapacityRefused,
    NonFinite,
    PositionBeyondEnd,
    ServerDraining,
    SessionEvicted,
    SplitImpossible,
    UsageError,
)
from lambda_split.partition import Masks, Trunk

__all__ = ["BatchingEngine", "required_attention"]

_SESSIONS_RETRY_S = 5  # somebody has to leave first
_MEMORY_RETRY_S = 1  # comes and goes with every generation
# Recordings hold memory of the GPU, and devices choose their splits: the first ones met have them.
_MOST_RECORDED_SPLITS = 4


def required_attention() -> str:
    """The attention function with which a trunk must be loaded for :class:`BatchingEngine`."""
    register()
    return RAGGED


class BatchingEngine:
    """Packs the works of a step into one ragged batch.

    Linear layers run once on all rows; attention runs over each session's own blocks. Sessions may
    have different splits: a layer runs on the rows of those sessions that it belongs to.

    Args:
        trunk: The layers, loaded with ``attention=required_attention()``.
        width: Hidden size.
        dtype: The trunk's dtype.
        pool: The memory for keys and values.
        max_sessions: The most sessions at a time.
        max_positions: The most positions of one.
        attend: The attention; session by session by default, which runs everywhere.
        record: Records steps of one token for each session, see :mod:`cloud.engine.graphs`; they
            run plainly where None. Wants an attention that makes the same calls in every step.

    Raises:
        UsageError: the trunk was loaded with another attention function.
    """

    def __init__(
        self,
        trunk: Trunk,
        *,
        width: int,
        dtype: torch.dtype,
        pool: KVPool,
        max_sessions: int,
        max_positions: int,
        attend: Attend = attend_by_session,
        record: Recorder | None = None,
    ) -> None:
        if trunk.stack.config._attn_implementation != RAGGED:  # noqa: SLF001 - the library's name
            raise UsageError("the trunk must be loaded with attention=required_attention()")
        self.width = width
        self.dtype = dtype
        self._stack = trunk.stack
        self._windows = dict(zip(trunk.stack.numbers, trunk.stack.windows, strict=True))
        self._pool = pool
        self._device = pool.geometry.device_of(trunk.stack.numbers.start)
        self._max_sessions = max_sessions
        self._max_positions = max_positions
        self._attend = attend
        self._places: dict[SessionCache, Place] = {}
        self._interrupted = threading.Event()
        self._record = record
        self._graphs: dict[range, DecodeGraphs] = {}

    def open(self, layers: range, max_positions: int, expected: int = 0) -> SessionCache:
        """See :meth:`Engine.open`."""
        loaded = self._stack.numbers
        if len(layers) == 0 or layers.start < loaded.start or layers.stop > loaded.stop:
            raise SplitImpossible(layers.start, loaded.stop - layers.stop, len(loaded))
        if len(self._places) >= self._max_sessions:
            raise CapacityRefused(
                f"the most is {counted(self._max_sessions, 'session')}", _SESSIONS_RETRY_S
            )
        session = SessionCache(layers, max_positions)
        place = Place(session, self._pool, min(expected, max_positions))
        if not place.reserve(min(expected + 1, max_positions)):
            raise CapacityRefused("the memory for keys and values is taken", _MEMORY_RETRY_S)
        self._places[session] = place
        return session

    def reserve(self, session: SessionCache, end: int) -> bool:
        """See :meth:`Engine.reserve`."""
        place = self._places.get(session)
        # Beyond its end, and without a place, the work itself is refused.
        return place is None or place.reserve(min(end, session.max_positions))

    def step(self, batch: Sequence[Work]) -> Iterator[Outcome]:
        """See :meth:`Engine.step`."""
        outcomes: dict[SessionCache, Outcome] = {}
        runnable: list[Work] = []
        for work in batch:
            try:
                self._begin(work)
            except Exception as error:  # noqa: BLE001 - handed to the one who sent this work
                outcomes[work.session] = error
            else:
                runnable.append(work)
        outcomes |= self._run(runnable)
        for work in batch:
            yield outcomes[work.session]

    def _begin(self, work: Work) -> None:
        place = self._places.get(work.session)
        if place is None:  # closed since the work was handed in
            raise SessionEvicted
        if work.begins:
            place.begin(work.start)
            place.trim(work.end)
        try:
            _check(work, place)
        except Exception:
            place.undo_forward()
            raise

    def _run(self, works: Sequence[Work]) -> dict[SessionCache, Outcome]:
        """Run them together; where that fails, one by one, so that one's trouble stays its own."""
        if not works:
            return {}
        places = [self._places[work.session] for work in works]
        try:
            slots = [place.advance(work.end) for place, work in zip(places, works, strict=True)]
            return self._run_together(works, slots)
        except Exception as error:  # noqa: BLE001 - handed to those who sent these works
            if len(works) == 1 or isinstance(error, ServerDraining):
                for place in places:
                    place.undo_forward()
                return dict.fromkeys((work.session for work in works), error)
            for place, work in zip(places, works, strict=True):
                if place.length == work.end:  # it got as far as this
                    place.undo_piece()
        outcomes: dict[SessionCache, Outcome] = {}
        for work in works:
            outcomes |= self._run([work])
        return outcomes

    @torch.inference_mode()
    def _run_together(
        self, works: Sequence[Work], slots: Sequence[torch.Tensor]
    ) -> dict[SessionCache, Outcome]:
        began = time.perf_counter()
        hidden = torch.cat([work.hidden.to(self.dtype) for work in works])  # (T, width)
        if self._device.type == "cuda":
            # From pinned memory, so that the copy and the first layers' launches overlap.
            hidden = hidden.pin_memory().to(self._device, non_blocking=True)
        hidden = self._forward(works, slots, hidden)
        # All positions count, wanted or not: their keys and values stay. Reading the answer waits
        # for the device, for the first time in the step.
        largest = largest_magnitudes(hidden)  # (T,)
        hidden = hidden.cpu()
        micros = round((time.perf_counter() - began) * 1e6)
        outcomes: dict[SessionCache, Outcome] = {}
        first = 0
        for work in works:
            rows = range(first, first + len(work.hidden))
            first = rows.stop
            if not np.isfinite(largest[rows.start : rows.stop]).all():
                self._places[work.session].undo_forward()
                outcomes[work.session] = NonFinite("outgoing")
                continue
            wanted = slice(rows.stop - work.reply, rows.stop)
            outcomes[work.session] = Result(hidden[wanted], largest[wanted], micros)
        return outcomes

    def _forward(
        self, works: Sequence[Work], slots: Sequence[torch.Tensor], hidden: torch.Tensor
    ) -> torch.Tensor:
        """All layers: (T, width) to (T, width)."""
        recorded = self._replay(works, slots, hidden)
        if recorded is not None:
            return recorded
        starts = {work.session.layers.start for work in works}
        borders = sorted(starts | {work.session.layers.stop for work in works})
        # Between two borders, the same sessions are active in every layer.
        for start, stop in itertools.pairwise(borders):
            active = [
                index
                for index, work in enumerate(works)
                if work.session.layers.start <= start and stop <= work.session.layers.stop
            ]
            if not active:
                continue
            chosen = [works[index] for index in active]
            some_slots = torch.cat([slots[index] for index in active])
            batch = self._batch(self._segments(chosen), some_slots)
            positions = torch.cat([torch.arange(work.start, work.end) for work in chosen])
            layers = range(start, stop)
            if len(chosen) == len(works):
                hidden = self._run_layers(hidden, positions, batch, layers)
            else:
                rows = _rows(works, active).to(hidden.device)
                some = self._run_layers(hidden[rows], positions, batch, layers)
                hidden = hidden.index_copy(0, rows, some)
        return hidden

    def _replay(
        self, works: Sequence[Work], slots: Sequence[torch.Tensor], hidden: torch.Tensor
    ) -> torch.Tensor | None:
        """The same from a recording; None where there can be none."""
        if self._record is None:
            return None
        layers = works[0].session.layers
        if not all(len(work.hidden) == 1 and work.session.layers == layers for work in works):
            return None
        if layers not in self._graphs:
            if len(self._graphs) == _MOST_RECORDED_SPLITS:
                return None
            self._graphs[layers] = DecodeGraphs(
                self._pool,
                most_blocks=self._pool.blocks_for(self._max_positions),
                make_batch=self._batch,
                layers=functools.partial(self._run_layers, layers=layers),
                record=self._record,
            )
        positions = torch.tensor([work.start for work in works])
        segments = self._segments(works)
        return self._graphs[layers].run(hidden, positions, torch.cat(list(slots)), segments)

    def _segments(self, works: Sequence[Work]) -> list[Segment]:
        segments, first = [], 0
        for work in works:
            rows = range(first, first + len(work.hidden))
            first = rows.stop
            segments.append(Segment(rows, work.start, self._places[work.session].held))
        return segments

    def _batch(self, segments: Sequence[Segment], slots: torch.Tensor) -> RaggedBatch:
        return RaggedBatch(
            self._pool,
            segments,
            slots,
            windows=self._windows,
            attend=self._attend,
            interrupted=self._interrupted,
        )

    def _run_layers(
        self, hidden: torch.Tensor, positions: torch.Tensor, batch: RaggedBatch, layers: range
    ) -> torch.Tensor:
        """Consecutive layers: hidden (T, width), positions int64 (T,)."""
        out: torch.Tensor = self._stack(
            hidden[None],  # (T, W) -> (1, T, W)
            positions[None].to(hidden.device, non_blocking=True),  # (T,) -> (1, T)
            batch,
            Masks(),
            layers,
            ragged=batch,
        )
        return out[0]  # (1, T, W) -> (T, W)

    def revert(self, session: SessionCache) -> None:
        """See :meth:`Engine.revert`."""
        with torch.inference_mode():
            self._places[session].undo_forward()

    def close(self, session: SessionCache) -> None:
        """See :meth:`Engine.close`."""
        place = self._places.pop(session, None)
        if place is not None:
            place.release()

    def interrupt(self) -> None:
        """See :meth:`Engine.interrupt`; takes effect at the next layer."""
        self._interrupted.set()

    @property
    def pool_use(self) -> PoolUse:
        """How full the memory for keys and values is."""
        return self._pool.use

    @property
    def open_sessions(self) -> int:
        """Sessions that have a place."""
        return len(self._places)


def _check(work: Work, place: Place) -> None:
    if work.end > work.session.max_positions:
        raise PositionBeyondEnd(work.end, work.session.max_positions)
    if work.start != place.length or not place.reserve(work.end):
        raise RuntimeError("a work was not reserved for, or does not continue its forward")


def _rows(works: Sequence[Work], chosen: Sequence[int]) -> torch.Tensor:
    """The rows of some works in the batch of all: int64."""
    ends = np.cumsum([len(work.hidden) for work in works])
    starts = ends - [len(work.hidden) for work in works]
    return torch.cat([torch.arange(starts[index], ends[index]) for index in chosen])

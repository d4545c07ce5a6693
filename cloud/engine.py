"""The engine: where sessions' chunks meet the trunk's layers.

:class:`Engine` is what the scheduler needs of one. :class:`SequentialEngine` runs the works of a
step one after the other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from cloud.codecs import largest_magnitudes
from cloud.kv import RevertibleKVCache
from lambda_split.errors import (
    CapacityRefused,
    NonFinite,
    PositionGap,
    SessionEvicted,
    SplitImpossible,
)
from lambda_split.partition import Trunk

__all__ = [
    "RETRY_AFTER_S",
    "Engine",
    "KVMemory",
    "Outcome",
    "Result",
    "SequentialEngine",
    "SessionCache",
    "Work",
]

RETRY_AFTER_S = 10  # what a full server tells those it sends away


@dataclass(frozen=True, eq=False, slots=True)
class SessionCache:
    """A session's place in an engine: the handle of its key-value cache. Equal only to itself.

    Attributes:
        layers: The layers that its chunks run through.
        max_positions: Positions that it may hold.
    """

    layers: range
    max_positions: int


@dataclass(frozen=True, slots=True)
class Work:
    """One chunk to run.

    Attributes:
        session: Whose it is.
        start: Position of its first token; the session's cache is cut back to it first.
        hidden: (tokens, width), in the engine's dtype and on its device.
        reply: How many of its last positions are wanted.
    """

    session: SessionCache
    start: int
    hidden: torch.Tensor
    reply: int


@dataclass(frozen=True, slots=True)
class Result:
    """What came out.

    Attributes:
        hidden: (reply, width), on the engine's device.
        largest: float32 (reply,), the largest magnitude of each of its rows, on the host.
        micros: Compute time of the work, in microseconds.
    """

    hidden: torch.Tensor
    largest: npt.NDArray[np.float32]
    micros: int


Outcome = Result | Exception


class Engine(Protocol):
    """What a scheduler needs. All calls but :meth:`interrupt` come from one thread.

    Attributes:
        width: Hidden size.
        dtype: Of the hidden states that it takes.
        device: Where it takes them.
    """

    width: int
    dtype: torch.dtype
    device: torch.device

    def open(self, layers: range, max_positions: int) -> SessionCache:
        """Make room for a session.

        Args:
            layers: A sub-range of the layers loaded.
            max_positions: The most positions that it will hold.

        Raises:
            CapacityRefused: there is none for now.
            SplitImpossible: not all of ``layers`` are loaded.
        """
        ...

    def step(self, batch: Sequence[Work]) -> Iterator[Outcome]:
        """Run works of different sessions, at most one each.

        Returns:
            For each work, in order and as soon as it is known, its result or the exception that it
            met. A work that failed leaves its session as it was, and the others untouched.
        """
        ...

    def revert(self, session: SessionCache) -> None:
        """Take back the session's last work: its result could not be sent."""
        ...

    def close(self, session: SessionCache) -> None:
        """Free a session's memory, also between two outcomes of a step.

        Works of it that have not run yet then fail.
        """
        ...

    def interrupt(self) -> None:
        """From any thread: end a running step early, its works fail with ServerDraining.

        The engine runs nothing any more after that.
        """
        ...


@dataclass(frozen=True, slots=True)
class KVMemory:
    """How much memory keys and values may take, all sessions together.

    Attributes:
        limit: In bytes. A session counts as if it held all positions that it asked for.
        position_bytes: Keys and values of one position in one layer.
    """

    limit: int
    position_bytes: int

    def bytes_of(self, session: SessionCache) -> int:
        """The most that a session can come to hold, in bytes."""
        return session.max_positions * len(session.layers) * self.position_bytes


class SequentialEngine:
    """Runs works one after the other, each with its session's own growing cache.

    Args:
        trunk: The layers.
        width: Hidden size.
        dtype: The trunk's dtype.
        device: Where it is.
        max_sessions: The most sessions at a time.
        kv_memory: Bounds their key-value caches together; unlimited where None.
    """

    def __init__(
        self,
        trunk: Trunk,
        *,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        max_sessions: int,
        kv_memory: KVMemory | None = None,
    ) -> None:
        self.width = width
        self.dtype = dtype
        self.device = device
        self._trunk = trunk
        self._max_sessions = max_sessions
        self._kv_memory = kv_memory
        self._caches: dict[SessionCache, RevertibleKVCache] = {}
        self._interrupted = threading.Event()

    def open(self, layers: range, max_positions: int) -> SessionCache:
        """See :meth:`Engine.open`."""
        loaded = self._trunk.stack.numbers
        if len(layers) == 0 or layers.start < loaded.start or layers.stop > loaded.stop:
            raise SplitImpossible(layers.start, loaded.stop - layers.stop, len(loaded))
        if len(self._caches) >= self._max_sessions:
            raise CapacityRefused(f"{self._max_sessions} sessions are open", RETRY_AFTER_S)
        session = SessionCache(layers, max_positions)
        if self._kv_memory is not None:
            needed = sum(self._kv_memory.bytes_of(each) for each in (*self._caches, session))
            if needed > self._kv_memory.limit:
                raise CapacityRefused("the memory for keys and values is taken", RETRY_AFTER_S)
        self._caches[session] = RevertibleKVCache(max_positions, layers, self._interrupted)
        return session

    def step(self, batch: Sequence[Work]) -> Iterator[Outcome]:
        """See :meth:`Engine.step`."""
        for work in batch:
            try:
                yield self._run(work)
            except Exception as error:  # noqa: BLE001 - handed to the one who sent this work
                yield error

    @torch.inference_mode()
    def _run(self, work: Work) -> Result:
        cache = self._caches.get(work.session)
        if cache is None:  # closed since the work was handed in
            raise SessionEvicted
        if work.start > cache.length:
            raise PositionGap(work.start, cache.length)
        began = time.perf_counter()
        cache.begin(work.start)
        try:
            hidden, largest = self._forward(work, cache)
        except BaseException:
            cache.revert()
            raise
        micros = round((time.perf_counter() - began) * 1e6)
        first = hidden.shape[0] - work.reply
        return Result(hidden[first:], largest[first:], micros)

    def _forward(
        self, work: Work, cache: RevertibleKVCache
    ) -> tuple[torch.Tensor, npt.NDArray[np.float32]]:
        end = work.start + work.hidden.shape[0]
        positions = torch.arange(work.start, end, device=self.device)
        hidden: torch.Tensor = self._trunk(
            work.hidden[None],  # (T, W) -> (1, T, W)
            positions[None],  # (T,) -> (1, T)
            cache,
            work.session.layers,
        )
        # All positions count, wanted or not: their keys and values stay. Reading the answer waits
        # for the device, so that the measured time is the computation's.
        largest = largest_magnitudes(hidden[0])  # (1, T, W) -> (T,)
        if not np.isfinite(largest).all():
            raise NonFinite("outgoing")
        return hidden[0], largest

    @torch.inference_mode()
    def revert(self, session: SessionCache) -> None:
        """See :meth:`Engine.revert`."""
        self._caches[session].revert()

    def close(self, session: SessionCache) -> None:
        """See :meth:`Engine.close`."""
        self._caches.pop(session, None)

    def interrupt(self) -> None:
        """See :meth:`Engine.interrupt`; takes effect at the next layer."""
        self._interrupted.set()

    @property
    def open_sessions(self) -> int:
        """Sessions that hold memory."""
        return len(self._caches)

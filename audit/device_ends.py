"""Head and tail as the audit runs them: in PyTorch, or the very graphs that a device runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from audit.whole_model import WholeModel
from edge_runtime.graphs import RuntimeSettings, load_head, load_tail
from lambda_split.bundle import Bundle
from lambda_split.errors import UsageError
from lambda_split.split import Split

__all__ = ["DeviceEnds", "DeviceGraphs", "GraphEnds", "ModelEnds", "open_graphs"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DeviceGraphs:
    """A bundle's graphs, ready to run.

    Attributes:
        ends: By split; empty where there is no bundle.
        weights: The format of their weights.
    """

    ends: Mapping[Split, GraphEnds] = field(default_factory=dict)
    weights: str = "fp32"


class DeviceEnds(Protocol):
    """A head and a tail with the keys and values of one text."""

    def forget(self) -> None:
        """Begin another text."""
        ...

    def truncate(self, length: int) -> None:
        """Forget all positions from ``length`` on."""
        ...

    def head(self, token_ids: Sequence[int], start: int) -> Floats:
        """Tokens from a position on to hidden states, float32 (T, W)."""
        ...

    def tail(self, hidden: Floats, start: int, rows: Sequence[int]) -> torch.Tensor:
        """Hidden states from a position on to the logits of some of these rows, (N, V)."""
        ...


class ModelEnds:
    """The model's own modules in float32: what a bundle of fp32 weights computes."""

    def __init__(self, model: WholeModel, split: Split) -> None:
        self._model = model
        self._head = split.head()
        self._tail = split.tail(model.layer_count)
        self.forget()

    def forget(self) -> None:
        """Begin another text."""
        self._head_cache = self._model.new_cache(self._head)
        self._tail_cache = self._model.new_cache(self._tail)

    def truncate(self, length: int) -> None:
        """Forget all positions from ``length`` on."""
        self._head_cache.truncate(length)
        self._tail_cache.truncate(length)

    @torch.inference_mode()
    def head(self, token_ids: Sequence[int], start: int) -> Floats:
        """See :class:`DeviceEnds`."""
        positions = torch.arange(start, start + len(token_ids))[None]  # (1, T)
        embedded = self._model.embed(torch.tensor([list(token_ids)]), positions)
        hidden: Floats = self._model.run(embedded, start, self._head, self._head_cache)[0].numpy()
        return hidden

    @torch.inference_mode()
    def tail(self, hidden: Floats, start: int, rows: Sequence[int]) -> torch.Tensor:
        """See :class:`DeviceEnds`."""
        states = torch.from_numpy(hidden)[None]  # (1, T, W)
        out = self._model.run(states, start, self._tail, self._tail_cache)
        return self._model.logits(out[0, list(rows)])


class GraphEnds:
    """A bundle's graphs under onnxruntime, in the weight format that they were exported in.

    Args:
        bundle: The bundle, with one split.
        threads: For each graph; the runtime's own choice where None.

    Raises:
        BundleError: a graph is missing, corrupt or not what the manifest says.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        settings = RuntimeSettings(threads=threads)
        self._head = load_head(bundle, settings)
        self._tail = load_tail(bundle, settings)
        self._capacity = bundle.manifest.geometry.max_positions
        self.forget()

    def forget(self) -> None:
        """Begin another text."""
        self._head_cache = self._head.new_cache(self._capacity)
        self._tail_cache = self._tail.new_cache(self._capacity)

    def truncate(self, length: int) -> None:
        """Forget all positions from ``length`` on."""
        self._head_cache.truncate(length)
        self._tail_cache.truncate(length)

    def head(self, token_ids: Sequence[int], start: int) -> Floats:
        """See :class:`DeviceEnds`."""
        ids = np.asarray(token_ids, dtype=np.int64)
        # The buffer is the next run's as well.
        return self._head.run(ids, start, self._head_cache).copy()

    def tail(self, hidden: Floats, start: int, rows: Sequence[int]) -> torch.Tensor:
        """See :class:`DeviceEnds`."""
        return torch.from_numpy(self._tail.run(hidden, start, self._tail_cache, rows).copy())


def open_graphs(
    bundle: Bundle, fingerprint: str, splits: Sequence[Split], threads: int | None
) -> DeviceGraphs:
    """Open the graphs of some of a bundle's splits.

    Args:
        bundle: The bundle.
        fingerprint: Of the public checkpoint.
        splits: Which splits.
        threads: For each graph; the runtime's own choice where None.

    Raises:
        UsageError: the bundle was cut from another checkpoint, or has no such split.
        BundleError: a graph is missing, corrupt or not what the manifest says.
    """
    if bundle.manifest.model.fingerprint != fingerprint:
        raise UsageError(f"{bundle.path} was cut from another checkpoint than MODEL")
    ends = {split: GraphEnds(bundle.at(split), threads) for split in splits}
    return DeviceGraphs(ends, bundle.manifest.graphs["head"].weights)

"""The head and the tail: a bundle's ONNX graphs, run chunk by chunk with their KV caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edge_runtime.graph_cache import GraphCache
from edge_runtime.graph_session import (
    OpenedGraph,
    RuntimeSettings,
    TensorSpec,
    open_graph,
    release_freed_memory,
)
from edge_runtime.native_calls import call_native
from lambda_split.bundle import Bundle, Geometry
from lambda_split.errors import GraphInvalid, UsageError

__all__ = ["GraphCache", "HeadRunner", "RuntimeSettings", "TailRunner", "load_head", "load_tail"]

_Floats = npt.NDArray[np.float32]
_Integers = npt.NDArray[np.int64]
_OPTIONAL_START = TensorSpec("tensor(int64)", (1,), required=False)


def load_head(bundle: Bundle, settings: RuntimeSettings) -> HeadRunner:
    """Load a bundle's head.

    Raises:
        BundleError: the graph is missing, corrupt or not what the manifest says.
    """
    width = bundle.manifest.geometry.hidden_size
    opened = open_graph(
        bundle,
        "head",
        settings,
        inputs={"token_ids": TensorSpec("tensor(int64)", (1, None)), "start": _OPTIONAL_START},
        outputs={"hidden": TensorSpec("tensor(float)", (1, None, width))},
    )
    return HeadRunner(opened, bundle.manifest.geometry)


def load_tail(bundle: Bundle, settings: RuntimeSettings) -> TailRunner:
    """Load a bundle's tail.

    Raises:
        BundleError: the graph is missing, corrupt or not what the manifest says.
    """
    geometry = bundle.manifest.geometry
    opened = open_graph(
        bundle,
        "tail",
        settings,
        inputs={
            "hidden": TensorSpec("tensor(float)", (1, None, geometry.hidden_size)),
            "logit_positions": TensorSpec("tensor(int64)", (None,)),
            "start": _OPTIONAL_START,
        },
        outputs={"logits": TensorSpec("tensor(float)", (1, None, geometry.vocab_size))},
    )
    return TailRunner(opened, geometry)


class _Runner:
    """What head and tail share: an opened graph and the caches that belong to it."""

    def __init__(self, opened: OpenedGraph, geometry: Geometry) -> None:
        self._opened = opened
        self._geometry = geometry

    @property
    def has_layers(self) -> bool:
        """Whether it has decoder layers, and with them a cache that has to be complete."""
        return bool(self._opened.graph.kv)

    def new_cache(self, max_positions: int) -> GraphCache:
        """An empty cache for one session of at most that many positions."""
        return GraphCache(self._opened, max_positions)


class HeadRunner(_Runner):
    """Embedding and first layers: token ids to hidden states; made by :func:`load_head`."""

    def run(self, token_ids: _Integers, start: int, cache: GraphCache) -> _Floats:
        """Compute hidden states; the cache is first cut back to ``start``, then appended to.

        Args:
            token_ids: int64 (T,), T at least 1.
            start: Position of the first token.
            cache: One that :meth:`new_cache` made.

        Returns:
            float32 (T, W), in a buffer that the next run with this cache overwrites.

        Raises:
            UsageError: a token out of the vocabulary, a start behind what the cache holds, or an
                end behind its capacity.
            GraphInvalid: the graph failed.
        """
        tokens = len(token_ids)
        # onnxruntime takes a negative id for one counted from the end.
        if tokens and not 0 <= token_ids.min() <= token_ids.max() < self._geometry.vocab_size:
            raise UsageError(f"a token id is outside 0 … {self._geometry.vocab_size - 1}")
        ids = np.asarray(token_ids, dtype=np.int64)[np.newaxis]  # (1, T)
        hidden = _run(
            self._opened,
            cache,
            start,
            tokens,
            feeds={"token_ids": ids},
            output="hidden",
            shape=(1, tokens, self._geometry.hidden_size),
        )
        return hidden.reshape(tokens, self._geometry.hidden_size)  # (1, T, W) -> (T, W)


class TailRunner(_Runner):
    """Last layers, norm and LM head: hidden states to logits; made by :func:`load_tail`."""

    def run(
        self, hidden: _Floats, start: int, cache: GraphCache, logit_rows: Sequence[int]
    ) -> _Floats:
        """Compute logits; the cache is first cut back to ``start``, then appended to.

        Args:
            hidden: float32 (T, W) from the trunk, T at least 1.
            start: Position of the first row.
            cache: One that :meth:`new_cache` made.
            logit_rows: Which rows' logits are wanted; none, where only the cache has to grow. The
                LM head is run for these only.

        Returns:
            float32 (len(logit_rows), V), in a buffer that the next run with this cache overwrites.

        Raises:
            UsageError: hidden states of another width, a row that is not there, a start behind what
                the cache holds, or an end behind its capacity.
            GraphInvalid: the graph failed.
        """
        if hidden.ndim != 2 or hidden.shape[1] != self._geometry.hidden_size:
            raise UsageError(
                f"hidden states of shape {hidden.shape} for a width of {self._geometry.hidden_size}"
            )
        tokens = len(hidden)
        if any(not 0 <= row < tokens for row in logit_rows):
            raise UsageError(f"logits of rows {list(logit_rows)} of a chunk of {tokens}")
        states = np.asarray(hidden, dtype=np.float32)[np.newaxis]  # (1, T, W)
        rows = np.array(logit_rows, dtype=np.int64)
        logits = _run(
            self._opened,
            cache,
            start,
            tokens,
            feeds={"hidden": states, "logit_positions": rows},
            output="logits",
            shape=(1, len(rows), self._geometry.vocab_size),
        )
        return logits.reshape(len(rows), self._geometry.vocab_size)  # (1, N, V) -> (N, V)


def _run(
    opened: OpenedGraph,
    cache: GraphCache,
    start: int,
    tokens: int,
    *,
    feeds: Mapping[str, _Floats | _Integers],
    output: str,
    shape: tuple[int, ...],
) -> _Floats:
    """Run a graph on one chunk and let its cache grow by it."""
    if not cache.belongs_to(opened.session):
        raise UsageError("this cache was made for another graph")
    if tokens < 1:
        raise UsageError("a chunk must have at least one position")
    if start < 0 or start + tokens > cache.capacity:
        raise UsageError(
            f"positions {start} to {start + tokens - 1} are outside the cache's {cache.capacity}"
        )
    # Without layers each position stands for itself, and earlier ones need not be there.
    if opened.graph.kv and start > cache.length:
        raise UsageError(f"a chunk starts at {start}, the cache holds {cache.length} positions")
    cache.truncate(start)
    cache.prepare(start, tokens)
    for role, array in feeds.items():
        cache.feed(opened.graph.inputs[role], array)
    result = cache.output(opened.graph.outputs[output], shape)
    try:
        call_native(
            lambda: opened.session.run_with_iobinding(cache.binding, opened.run_options),
            opened.run_options,
        )
    except Exception as error:  # onnxruntime's classes have no common base but this
        raise GraphInvalid(opened.graph.file, str(error)) from error
    cache.extend(start + tokens)
    if tokens > 1:
        release_freed_memory()
    return result

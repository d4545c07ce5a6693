"""A device that has the whole model: two graphs under onnxruntime, and nothing in the cloud.

The head of one split has all layers but the last, the tail of another one the last: together they
are the model, so no format or graph of their own is needed.
"""

from __future__ import annotations

import time

import numpy as np

from bench.memory import peak_rss
from bench.orders import Cost, EdgeOnly, Generate, Generated
from edge_runtime.graphs import RuntimeSettings, load_head, load_tail
from edge_runtime.sampling import Sampler, SamplingSettings
from lambda_split.bundle import load_bundle
from lambda_split.errors import PromptTooLong

__all__ = ["EdgeDevice"]

_CHUNK_TOKENS = 128  # as the split device takes them


class EdgeDevice:
    """Generates without a cloud."""

    def __init__(self, setup: EdgeOnly) -> None:
        """Load both graphs.

        Raises:
            BundleError: the bundle cannot be read.
            UsageError: it has no such splits.
        """
        bundle = load_bundle(setup.bundle)
        settings = RuntimeSettings(threads=setup.threads)
        self._head = load_head(bundle.at(setup.head_split), settings)
        self._tail = load_tail(bundle.at(setup.tail_split), settings)
        self._head_cache = self._head.new_cache(setup.max_positions)
        self._tail_cache = self._tail.new_cache(setup.max_positions)
        self._max_positions = setup.max_positions

    def generate(self, order: Generate) -> Generated:
        """Carry out an order.

        Raises:
            PromptTooLong: prompt and new tokens take more positions than there are.
            BundleError: a graph failed.
        """
        if len(order.token_ids) + order.max_new_tokens > self._max_positions:
            raise PromptTooLong("make it shorter", len(order.token_ids), self._max_positions)
        sampler = Sampler(SamplingSettings())
        history = list(order.token_ids)
        costs = []
        waiting, start = history, 0
        for _ in range(order.max_new_tokens):
            begin = time.perf_counter()
            head_s, tail_s, token = self._next(waiting, start, sampler, history)
            costs.append(Cost(seconds=time.perf_counter() - begin, head_s=head_s, tail_s=tail_s))
            start = len(history)
            history = [*history, token]
            waiting = [token]
        return Generated(
            prompt_tokens=len(order.token_ids),
            new_tokens=order.max_new_tokens,
            first=costs[0],
            rest=sum(costs[1:], Cost()),
            peak_rss=peak_rss(),
            token_ids=tuple(history[len(order.token_ids) :]),
        )

    def _next(
        self, token_ids: list[int], start: int, sampler: Sampler, history: list[int]
    ) -> tuple[float, float, int]:
        """Run tokens and sample; seconds in the head and in the tail, and the token."""
        head_s = tail_s = 0.0
        ids = np.asarray(token_ids, dtype=np.int64)
        for offset in range(0, len(ids), _CHUNK_TOKENS):
            chunk = ids[offset : offset + _CHUNK_TOKENS]
            wanted = [len(chunk) - 1] if offset + len(chunk) == len(ids) else []
            begin = time.perf_counter()
            hidden = self._head.run(chunk, start + offset, self._head_cache)  # (T, W)
            middle = time.perf_counter()
            logits = self._tail.run(hidden, start + offset, self._tail_cache, wanted)  # (N, V)
            head_s += middle - begin
            tail_s += time.perf_counter() - middle
        return head_s, tail_s, sampler.sample(logits[-1], history)

"""How attention is written into a graph: the two kinds of key-value cache.

The library's attention modules do two things that a graph must do differently: they append to a
cache (``past_key_values.update``) and they call an attention function by its registered name. Both
are answered here by one object that lives for one trace, so no layer is rewritten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import nn
from transformers import AttentionInterface

from export.settings import AttentionChoice, GraphAttention
from lambda_split.bundle import KVGeometry
from lambda_split.errors import UsageError
from lambda_split.partition import LayerStack

__all__ = ["ConcatKV", "SharedKV", "TracedKV", "choose_attention", "during_trace"]

_REGISTERED_NAME = "lambda_split_traced"
_HEAD_DIM_STEP = 8  # onnxruntime's GroupQueryAttention refuses other head sizes


class TracedKV(Protocol):
    """The cache of a graph while it is traced, and the attention over it."""

    def update(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the attention module is given back for its new key and value."""
        ...

    def attend(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        scaling: float,
        softcap: float | None = None,
        **kwargs: object,
    ) -> tuple[torch.Tensor, None]:
        """The attention function, in the library's convention.

        Args:
            module: The attention module; its ``layer_idx`` says which layer this is.
            query: (1, heads, T, head_dim), already rotated.
            key: (1, kv_heads, K, head_dim), as :meth:`update` returned it.
            value: As ``key``.
            attention_mask: None; the mask follows from the positions.
            scaling: Factor of the scores.
            softcap: Scores are squashed to ±softcap where given.
            **kwargs: What the library passes besides; it has no meaning here.

        Returns:
            (1, T, heads, head_dim) and None.
        """
        ...

    def present(self) -> tuple[torch.Tensor, ...]:
        """The graph's outputs: key and value of each layer, in order."""
        ...


class SharedKV:
    """One preallocated buffer a layer, bound as both input and output: appended in place.

    Emits ``com.microsoft::GroupQueryAttention``, whose causal rule, window and soft cap are
    attributes. ``seqlens_k`` (the last valid position) and ``total_sequence_length`` come from the
    start position and the number of tokens, so a smaller start cuts the cache back.

    Args:
        past: Key and value buffer of each layer, each (1, kv_heads, capacity, head_dim).
        start: int64 (1,), the first position of the call.
        tokens: T.
        numbers: The layers' numbers in the whole model.
        windows: For each of them its sliding window, or None.
    """

    def __init__(
        self,
        past: Sequence[torch.Tensor],
        start: torch.Tensor,
        tokens: int,
        numbers: range,
        windows: Sequence[int | None],
    ) -> None:
        self._past = past
        self._present = list(past)
        self._numbers = numbers
        self._windows = windows
        total = (start + tokens).to(torch.int32)  # (1,)
        self._last = total - 1  # (1,)
        self._total = total.reshape(())

    def update(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Nothing to append here: the operator does it."""
        del layer_idx, args, kwargs
        return key, value

    def attend(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        scaling: float,
        softcap: float | None = None,
        **kwargs: object,
    ) -> tuple[torch.Tensor, None]:
        """See :meth:`TracedKV.attend`."""
        del attention_mask, kwargs
        index = self._numbers.index(int(module.layer_idx))  # type: ignore[arg-type]  # an int on all attention modules
        _, heads, tokens, head_dim = query.shape
        kv_heads = key.shape[1]
        past_key, past_value = self._past[2 * index], self._past[2 * index + 1]
        output, present_key, present_value = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            (
                query.transpose(1, 2).reshape(1, tokens, heads * head_dim),
                key.transpose(1, 2).reshape(1, tokens, kv_heads * head_dim),
                value.transpose(1, 2).reshape(1, tokens, kv_heads * head_dim),
                past_key,
                past_value,
                self._last,
                self._total,
            ),
            {
                "num_heads": heads,
                "kv_num_heads": kv_heads,
                "do_rotary": 0,
                "scale": float(scaling),
                "softcap": float(softcap or 0.0),
                # As in the library, the window counts the query's own position.
                "local_window_size": self._windows[index] or -1,
            },
            dtypes=(query.dtype, past_key.dtype, past_value.dtype),
            shapes=((1, tokens, heads * head_dim), past_key.shape, past_value.shape),
            version=1,
        )
        self._present[2 * index : 2 * index + 2] = [present_key, present_value]
        return output.reshape(1, tokens, heads, head_dim), None

    def present(self) -> tuple[torch.Tensor, ...]:
        """See :meth:`TracedKV.present`."""
        return tuple(self._present)


class ConcatKV:
    """Past and new positions are concatenated; only standard operators are emitted.

    Args:
        past: Key and value of each layer, each (1, kv_heads, P, head_dim) with P = start.
        positions: int64 (1, T).
        numbers: The layers' numbers in the whole model.
        windows: For each of them its sliding window, or None.
    """

    def __init__(
        self,
        past: Sequence[torch.Tensor],
        positions: torch.Tensor,
        numbers: range,
        windows: Sequence[int | None],
    ) -> None:
        self._present = list(past)
        self._queries = positions[0][:, None]  # (T, 1)
        self._numbers = numbers
        self._windows = windows

    def update(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append to what the graph was given."""
        del args, kwargs
        index = 2 * self._numbers.index(layer_idx)
        self._present[index] = torch.cat((self._present[index], key), dim=2)
        self._present[index + 1] = torch.cat((self._present[index + 1], value), dim=2)
        return self._present[index], self._present[index + 1]

    def attend(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        scaling: float,
        softcap: float | None = None,
        **kwargs: object,
    ) -> tuple[torch.Tensor, None]:
        """See :meth:`TracedKV.attend`."""
        del attention_mask, kwargs
        window = self._windows[self._numbers.index(int(module.layer_idx))]  # type: ignore[arg-type]  # an int on all attention modules
        _, heads, tokens, head_dim = query.shape
        _, kv_heads, keys, _ = key.shape
        # Heads that share a key are neighbours: fold them into rows instead of repeating the keys.
        rows = heads // kv_heads * tokens
        grouped = query.reshape(1, kv_heads, rows, head_dim)
        scores = torch.matmul(grouped * scaling, key.transpose(2, 3))  # (1, kv_heads, rows, K)
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        scores = scores.reshape(1, heads, tokens, keys)
        positions = torch.arange(keys)[None, :]  # (1, K): key j has position j
        allowed = positions <= self._queries  # (T, K)
        if window is not None:
            allowed = allowed & (positions > self._queries - window)
        lowest = torch.full((), torch.finfo(scores.dtype).min, dtype=scores.dtype)
        weights = torch.softmax(torch.where(allowed, scores, lowest), dim=-1)
        output = torch.matmul(weights.reshape(1, kv_heads, rows, keys), value)
        # (1, kv_heads, rows, head_dim) -> (1, heads, T, head_dim) -> (1, T, heads, head_dim)
        return output.reshape(1, heads, tokens, head_dim).transpose(1, 2), None

    def present(self) -> tuple[torch.Tensor, ...]:
        """See :meth:`TracedKV.present`."""
        return tuple(self._present)


@contextmanager
def during_trace(stack: LayerStack, cache: TracedKV) -> Iterator[None]:
    """Within, the attention modules of ``stack`` call ``cache.attend``."""
    config = stack.config  # one object, which all of its layers hold
    before = config._attn_implementation  # noqa: SLF001  # the library's switch has no public name
    AttentionInterface.register(_REGISTERED_NAME, cache.attend)
    config._attn_implementation = _REGISTERED_NAME  # noqa: SLF001  # as above
    try:
        yield
    finally:
        config._attn_implementation = before  # noqa: SLF001  # as above
        # There is no public way to unregister.
        AttentionInterface._global_mapping.pop(_REGISTERED_NAME, None)  # noqa: SLF001  # as above


def choose_attention(choice: AttentionChoice, layers: Sequence[KVGeometry]) -> GraphAttention:
    """The attention of a graph with these layers.

    Raises:
        UsageError: ``shared-kv`` was asked for, but its kernel cannot run these layers.
    """
    odd = next((kv.head_dim for kv in layers if kv.head_dim % _HEAD_DIM_STEP), None)
    if odd is None:
        return "concat-kv" if choice == "concat-kv" else "shared-kv"
    if choice == "shared-kv":
        raise UsageError(
            f"shared-kv attention needs a head size that is a multiple of {_HEAD_DIM_STEP}, this "
            f"model has {odd}: use --attention concat-kv or auto"
        )
    return "concat-kv"

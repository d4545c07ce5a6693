"""Attention of a ragged batch, session by session, with PyTorch's scaled-dot-product attention.

Runs everywhere and for every family: sliding windows, capped scores, grouped heads. On a CPU a
session's keys are a view of the pool as long as its blocks lie side by side, so nothing is copied.
"""

from __future__ import annotations

import functools

import torch
from torch.nn.functional import scaled_dot_product_attention

from cloud.engine.ragged import RaggedBatch, Segment

__all__ = ["attend_by_session"]


def attend_by_session(
    batch: RaggedBatch,
    layer: int,
    query: torch.Tensor,
    *,
    scale: float,
    softcap: float | None,
) -> torch.Tensor:
    """See :class:`~cloud.engine.ragged.Attend`."""
    window = batch.windows[layer]
    _, heads, tokens, head_dim = query.shape
    out = query.new_empty((1, tokens, heads, head_dim))
    for index, segment in enumerate(batch.segments):
        first_key = _first_key(segment, window)
        keys, values = _keys_and_values(batch, layer, index, first_key)
        if keys.device.type == "cpu":
            # In 16 bits PyTorch 2.13 takes five times as long for a single query as in float32,
            # with the conversion of all keys.
            keys, values = keys.float(), values.float()
        # (1, heads, n, head_dim), in what keys are in
        own = query[:, :, segment.rows.start : segment.rows.stop].to(keys.dtype)
        mask = None
        if _needs_mask(segment, window, softcap):
            make = functools.partial(_mask, segment, first_key, window, own)
            mask = batch.once(("mask", index, window), make)
        if softcap is None:
            attended = _plain(own, keys, values, mask, scale=scale)
        else:
            attended = _capped(own, keys, values, mask, scale=scale, softcap=softcap)
        # (1, heads, n, head_dim) -> (1, n, heads, head_dim)
        out[:, segment.rows.start : segment.rows.stop] = attended.transpose(1, 2)
    return out


def _needs_mask(segment: Segment, window: int | None, softcap: float | None) -> bool:
    """Whether no other rule says what may be seen: one query sees every key that it is given."""
    if len(segment.rows) == 1:
        return False
    beyond_window = window is not None and segment.end > window
    return segment.start > 0 or beyond_window or softcap is not None


def _first_key(segment: Segment, window: int | None) -> int:
    """The first key that any of the segment's queries sees."""
    return 0 if window is None else max(0, segment.start - window + 1)


def _keys_and_values(
    batch: RaggedBatch, layer: int, index: int, first: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A session's keys and values from ``first`` on, each (1, kv_heads, K, head_dim)."""
    segment = batch.segments[index]
    make = functools.partial(batch.pool.runs, segment.held, first, segment.end)
    runs = batch.once(("runs", index, first), make)
    return batch.pool.view(layer, runs)


def _mask(segment: Segment, first: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
    """What may be seen, additive: (n, K), keys from ``first`` on."""
    keys = torch.arange(first, segment.end, device=like.device)  # (K,)
    queries = torch.arange(segment.start, segment.end, device=like.device)[:, None]  # (n, 1)
    seen = keys <= queries
    if window is not None:
        seen &= keys > queries - window
    mask = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(~seen, torch.finfo(like.dtype).min)


def _plain(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    scale: float,
) -> torch.Tensor:
    heads, tokens, head_dim = query.shape[1:]
    groups = heads // keys.shape[1]
    if tokens == 1 and groups > 1:
        # One query of each of the heads that share keys: as several queries of one head, which
        # saves copying the keys. (1, heads, 1, D) -> (1, kv_heads, groups, D) and back
        grouped = query.reshape(1, keys.shape[1], groups, head_dim)
        out = scaled_dot_product_attention(grouped, keys, values, scale=scale)
        return out.reshape(1, heads, 1, head_dim)
    # The library's causal rule aligns queries with the first keys: right only without a past,
    # which is when there is no mask.
    return scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=mask,
        is_causal=mask is None and tokens > 1,
        scale=scale,
        enable_gqa=groups > 1,
    )


def _capped(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    scale: float,
    softcap: float,
) -> torch.Tensor:
    """Scores squashed to ± softcap before the mask (Gemma 2, arXiv 2408.00118)."""
    heads, tokens, head_dim = query.shape[1:]
    kv_heads = keys.shape[1]
    # (1, heads, n, D) -> (kv_heads, groups, n, D); keys (kv_heads, 1, K, D)
    grouped = query.reshape(kv_heads, heads // kv_heads, tokens, head_dim)
    scores = grouped @ keys[0][:, None].transpose(2, 3) * scale  # (kv_heads, groups, n, K)
    scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ values[0][:, None]).reshape(1, heads, tokens, head_dim)

"""Which positions may attend to which, from arithmetic on positions alone.

Key *j* of a cache belongs to position *j*, so no other state is needed, and the same lines can be
traced for export.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Masks", "causal_masks", "minimal_masks"]


@dataclass(frozen=True)
class Masks:
    """Additive masks (B, 1, T, K) for the two kinds of layers; None means the plain causal rule.

    Attributes:
        full: For layers that attend to all earlier positions.
        sliding: For layers that attend to a window.
    """

    full: torch.Tensor | None = None
    sliding: torch.Tensor | None = None


def _additive(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    zero = torch.zeros((), dtype=dtype, device=allowed.device)
    # The most negative finite value: -inf minus -inf is NaN in softmax implementations.
    lowest = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=allowed.device)
    return torch.where(allowed, zero, lowest)[:, None]  # (B, 1, T, K)


def causal_masks(
    positions: torch.Tensor, key_count: int, window: int | None, dtype: torch.dtype
) -> Masks:
    """Both masks, explicitly.

    Args:
        positions: int64 (B, T), the queries' positions.
        key_count: K, the keys 0 … K−1 that the attention will see; later ones than a query's own
            position are masked.
        window: How many positions a sliding layer sees, the query's own included; None if there
            are no sliding layers.
        dtype: The hidden states' dtype.
    """
    keys = torch.arange(key_count, device=positions.device)[None, None, :]  # (1, 1, K)
    queries = positions[:, :, None]  # (B, T, 1)
    causal = keys <= queries  # (B, T, K)
    if window is None:
        return Masks(_additive(causal, dtype), None)
    return Masks(_additive(causal, dtype), _additive(causal & (keys > queries - window), dtype))


def minimal_masks(
    positions: torch.Tensor, start: int, window: int | None, dtype: torch.dtype, *, explicit: bool
) -> Masks:
    """The masks that attention cannot do without; None elsewhere is faster and says the same.

    A single query may see every key, and a chunk that starts at 0 has the plain causal pattern
    that scaled-dot-product attention applies by itself. Only there: for a chunk after a past its
    ``is_causal`` would align queries with the first keys.

    Args:
        positions: int64 (B, T), start … start+T−1 in each row.
        start: Cached positions before the chunk.
        window: As in :func:`causal_masks`.
        dtype: The hidden states' dtype.
        explicit: The attention function has no causal rule of its own.
    """
    tokens = positions.shape[1]
    key_count = start + tokens
    plain = tokens == 1 or (start == 0 and not explicit)
    within = window is None or key_count <= window
    if plain and within:
        return Masks()
    masks = causal_masks(positions, key_count, None if within else window, dtype)
    full = None if plain else masks.full
    return Masks(full, masks.full if within else masks.sliding)

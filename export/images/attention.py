"""Attention over a whole picture without a matrix of all pairs.

The VAE's decoder has one attention layer over all latents: 16,384 of them for a picture of 1024
pixels, whose scores alone would take a gigabyte. onnxruntime's ``MultiHeadAttention`` goes through
them in blocks, as FlashAttention does (Dao et al., arXiv 2205.14135).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["attention_in_blocks"]


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> torch.Tensor:
    if attn_mask is not None or is_causal or dropout_p:
        raise NotImplementedError("a decoder's attention has no mask")
    batch, heads, tokens, width = query.shape
    # (B, heads, T, D) -> (B, T, heads · D), as the operator takes them
    flat = [part.transpose(1, 2).reshape(batch, -1, heads * width) for part in (query, key, value)]
    output = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        flat,
        {"num_heads": heads, "scale": float(width**-0.5 if scale is None else scale)},
        dtype=query.dtype,
        shape=(batch, tokens, heads * width),
        version=1,
    )
    return output.reshape(batch, tokens, heads, width).transpose(1, 2)


@contextmanager
def attention_in_blocks() -> Iterator[None]:
    """Within, PyTorch's attention function is traced as onnxruntime's operator."""
    before = nn.functional.scaled_dot_product_attention
    nn.functional.scaled_dot_product_attention = _attend  # type: ignore[assignment]  # fewer settings
    try:
        yield
    finally:
        nn.functional.scaled_dot_product_attention = before

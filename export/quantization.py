"""Block-wise affine quantization with scales that minimize the squared error.

Each block of weights along the input dimension becomes integers *q* with one scale *s* and one
integer zero point *z*; a weight is read back as ``s · (q − z)``. Rounding to the range of the block
is the usual choice, but for few bits it is better to clip the outermost weights a little: several
shrunken ranges are tried, for each the scale is refitted by least squares to the integers that it
led to, and the one with the smallest squared error is kept. (The alternation is Lloyd's, 1982; the
idea to search the range is that of the "k-quants" of llama.cpp.)

The layout is that of onnxruntime's ``MatMulNBits``, which its ``GatherBlockQuantized`` shares where
the input dimension is a multiple of the block: the lower half byte holds the even index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

__all__ = ["Bits", "BlockQuantized", "dequantize_blocks", "quantize_blocks"]

Bits = Literal[4, 8]
# onnxruntime holds a scale three times in memory (in the file's mapping, beside the packed weights,
# and as a sum over the block), so that 4-bit blocks of 32 weights take 1.4 times their file's size,
# of 64 weights 1.2 times. The error of blocks of 64 is a tenth larger.
_BLOCK_SIZES: dict[int, int] = {4: 64, 8: 32}
_SHRINKS: dict[int, tuple[float, ...]] = {
    4: (1.0, 0.93, 0.86),  # within 1 % of the error that a search ten times as long finds
    8: (1.0,),  # 256 steps: clipping costs more than it gains
}
_CHUNK_WEIGHTS = 1 << 20  # bounds the temporaries, whatever the matrix's size


@dataclass(frozen=True)
class BlockQuantized:
    """A weight matrix (N, K), quantized along K.

    Attributes:
        packed: uint8 (N, blocks, block_size · bits / 8); the last block is padded with zeros.
        scales: float32 (N, blocks).
        zero_points: uint8 (N, ceil(blocks · bits / 8)).
        columns: K.
        bits: Bits of a weight.
        block_size: Weights that share a scale.
    """

    packed: torch.Tensor
    scales: torch.Tensor
    zero_points: torch.Tensor
    columns: int
    bits: Bits
    block_size: int


def quantize_blocks(weight: torch.Tensor, bits: Bits) -> BlockQuantized:
    """Quantize a matrix; temporaries stay small because rows are handled in chunks.

    Args:
        weight: (N, K), any floating dtype.
        bits: 4 or 8.
    """
    rows, columns = weight.shape
    size = _BLOCK_SIZES[bits]
    blocks = -(-columns // size)
    packed = torch.empty((rows, blocks, size * bits // 8), dtype=torch.uint8)
    scales = torch.empty((rows, blocks), dtype=torch.float32)
    zero_points = torch.empty((rows, -(-blocks * bits // 8)), dtype=torch.uint8)
    step = max(1, _CHUNK_WEIGHTS // (blocks * size))
    for first in range(0, rows, step):
        piece = slice(first, first + step)
        padding = blocks * size - columns
        padded = torch.nn.functional.pad(weight[piece].float(), (0, padding))
        # (n, blocks · size) -> (n, blocks, size)
        values, scale, zero = _fit(padded.reshape(-1, blocks, size), bits)
        packed[piece] = _pack(values, bits)
        scales[piece] = scale[..., 0]
        zero_points[piece] = _pack(zero[..., 0], bits)
    return BlockQuantized(packed, scales, zero_points, columns, bits, size)


def dequantize_blocks(quantized: BlockQuantized) -> torch.Tensor:
    """The weights (N, K) in float32 that the operators compute with."""
    blocks = quantized.scales.shape[1]
    values = _unpack(quantized.packed, quantized.bits).float()
    zero = _unpack(quantized.zero_points, quantized.bits)[:, :blocks, None].float()
    weight = (values - zero) * quantized.scales[..., None]
    # (N, blocks, block_size) -> (N, blocks · block_size), less the padding
    return weight.flatten(1)[:, : quantized.columns]


def _fit(weight: torch.Tensor, bits: Bits) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    # weight (n, blocks, size) -> integers of that shape, scale and zero point (n, blocks, 1)
    top = 2**bits - 1
    # Zero must be inside the range: it is then exact, and the zero point fits into its bits.
    low = weight.amin(-1, keepdim=True).clamp_(max=0)
    high = weight.amax(-1, keepdim=True).clamp_(min=0)
    span = high - low
    span = torch.where(span > 0, span, torch.ones_like(span))
    zero = torch.round(-low / span * top)
    best_error = torch.full_like(span, torch.inf)
    best_scale = torch.ones_like(span)
    best_values = torch.empty_like(weight)
    for shrink in _SHRINKS[bits]:
        scale = span * (shrink / top)
        for _ in range(2):
            values = torch.div(weight, scale).round_().add_(zero).clamp_(0, top)
            centered = values - zero
            power = (centered * centered).sum(-1, keepdim=True)
            fitted = (weight * centered).sum(-1, keepdim=True) / power.clamp(min=1)
            # A block of zeros has no scale; any will do.
            scale = torch.where(fitted > 0, fitted, torch.ones_like(fitted))
        error = (weight - centered * scale).square_().sum(-1, keepdim=True)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_scale = torch.where(better, scale, best_scale)
        best_values = torch.where(better, values, best_values)
    return best_values.to(torch.uint8), best_scale, zero.to(torch.uint8)


def _pack(values: torch.Tensor, bits: Bits) -> torch.Tensor:
    # uint8 (…, n) -> uint8 (…, ceil(n · bits / 8))
    if bits == 8:
        return values
    even = torch.nn.functional.pad(values, (0, values.shape[-1] % 2))
    return even[..., 0::2] | (even[..., 1::2] << 4)


def _unpack(packed: torch.Tensor, bits: Bits) -> torch.Tensor:
    # uint8 (…, m) -> uint8 (…, m · 8 / bits)
    if bits == 8:
        return packed
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)

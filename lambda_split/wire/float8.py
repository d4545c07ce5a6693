"""8-bit floating point: E4M3 and E5M2, rounded to nearest even straight from float32.

The layouts are those of Micikevicius et al., "FP8 formats for deep learning" (arXiv 2209.05433),
and PyTorch's ``float8_e4m3fn`` and ``float8_e5m2``: E4M3 has no infinities, and NaN only where all
bits below the sign are set, so that it reaches 448; E5M2 is IEEE 754 with 5 and 2 bits.

Both directions are tables. Decoding looks up 256 values. Encoding looks up 65536 codes by the upper
half of a float32's bits, whose last bit is set where any bit of the lower half was. That is
rounding to odd: it keeps 8 significant bits, more than two beyond what the result keeps, so a tie
remains a tie and what lies beside one stays on its side (Boldo and Melquiond, "When double rounding
is odd", 2005). The table itself is made from the definition: the nearest of all values, on a tie
the even.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["E4M3", "E5M2", "Float8", "decode_float8", "encode_float8"]


@dataclass(frozen=True, slots=True)
class Float8:
    """A layout of 8 bits: sign, exponent, mantissa.

    Attributes:
        mantissa_bits: Bits of the significand that are stored.
        bias: What is subtracted from the stored exponent.
        largest_code: Code of the largest finite value; above it are infinity and NaN.
        largest: The greatest float32 magnitude that still rounds to a finite value.
    """

    mantissa_bits: int
    bias: int
    largest_code: int
    largest: float


E4M3 = Float8(mantissa_bits=3, bias=7, largest_code=0x7E, largest=464.0)
"""Steps of 1/8 within an octave, 2⁻⁹ to 448. 464 is a tie between 448 and 480, and 448 is even."""

E5M2 = Float8(
    mantissa_bits=2, bias=15, largest_code=0x7B, largest=float(np.nextafter(np.float32(61440), 0))
)
"""Steps of 1/4 within an octave, 2⁻¹⁶ to 57344. 61440 is a tie that goes to infinity."""


def encode_float8(values: npt.NDArray[np.float32], layout: Float8) -> npt.NDArray[np.uint8]:
    """Round to 8 bits.

    Args:
        values: float32, any shape, magnitudes up to ``layout.largest``.
        layout: The format.

    Returns:
        uint8 codes of the same shape; the sign of zero is kept.
    """
    bits = np.ascontiguousarray(values).view(np.uint32)
    # Adding 0xffff carries into bit 16 exactly where the lower half is not zero.
    odd = ((bits & 0xFFFF) + 0xFFFF | bits) >> 16
    return _codes(layout).take(odd)


def decode_float8(codes: npt.NDArray[np.uint8], layout: Float8) -> npt.NDArray[np.float32]:
    """Read 8-bit values.

    Args:
        codes: uint8, any shape.
        layout: The format.

    Returns:
        float32 of the same shape, NaN for every code above ``layout.largest_code``.
    """
    return _values(layout).take(codes)


@functools.cache
def _values(layout: Float8) -> npt.NDArray[np.float32]:
    """The value of each code."""
    code = np.arange(0x80)
    exponent, mantissa = code >> layout.mantissa_bits, code & ((1 << layout.mantissa_bits) - 1)
    # Exponent 0 means subnormal: no hidden bit, and the step of exponent 1.
    significand = mantissa + np.where(exponent > 0, 1 << layout.mantissa_bits, 0)
    power = np.maximum(exponent, 1) - layout.bias - layout.mantissa_bits
    positive = np.where(code <= layout.largest_code, np.ldexp(significand, power), np.nan)
    return np.concatenate([positive, -positive]).astype(np.float32)


@functools.cache
def _codes(layout: Float8) -> npt.NDArray[np.uint8]:
    """The code of each float32 whose lower 16 bits are zero, by its upper 16 bits."""
    values = _values(layout)[: layout.largest_code + 1]  # ascending from 0
    magnitudes = (np.arange(0x8000, dtype=np.uint32) << 16).view(np.float32)
    middles = (values[1:] + values[:-1]) / 2  # exact in float32
    below = np.searchsorted(middles, magnitudes, side="left")  # ties to the lower neighbour
    above = np.searchsorted(middles, magnitudes, side="right")  # ties to the upper one
    even = np.where(below % 2 == 0, below, above).astype(np.uint8)
    return np.concatenate([even, even | 0x80])

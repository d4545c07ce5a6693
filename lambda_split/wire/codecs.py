"""Codecs in numpy: hidden states to wire bytes and back. ``cloud.codecs`` is the same in torch.

Both write the same bytes for the same values; ``tests/vectors/`` holds them to it.

fp16 cannot hold magnitudes above 65504, which some model families exceed in a few channels. Such
values are never clipped: the token's row is divided by a power of two, which is exact, and the
exponent travels as one int8 in front of the values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lambda_split.errors import CodecOverflow, FrameLengthMismatch, NonFinite
from lambda_split.wire.frames import Codec, payload_bytes

__all__ = ["FP16_MAX", "FP16_OVERFLOW", "Encoded", "decode", "encode"]

FP16_MAX = 65504.0
_FP16_EXPONENT = 15  # rows are scaled to below 2**15, so that rounding cannot reach infinity
# From here on a float32 rounds up to 2**15 * 2**113 = 2**128 in scaled fp16, which is no float32.
FP16_OVERFLOW = float(np.ldexp(1.0 - 2.0**-12, 128))

Hidden = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A payload, and whether it begins with per-token exponents."""

    payload: bytes
    scaled: bool = False


def encode(hidden: Hidden, codec: Codec) -> Encoded:
    """Lay hidden states out for the wire.

    Args:
        hidden: float32 (tokens, width).
        codec: The layout.

    Returns:
        The payload: little-endian, row-major, exponents first where any row needed one.

    Raises:
        NonFinite: a value is NaN or infinite.
        CodecOverflow: a finite value that would be read back as infinity (bf16 and fp16 within a
            rounding step of float32's largest value).
    """
    if not np.isfinite(hidden).all():
        raise NonFinite("outgoing")
    if codec is Codec.FP32:
        return Encoded(hidden.astype("<f4", copy=False).tobytes())
    if codec is Codec.BF16:
        return Encoded(_to_bf16(hidden).tobytes())
    return _encode_fp16(hidden)


def _encode_fp16(hidden: Hidden) -> Encoded:
    largest = np.abs(hidden).max(axis=1, initial=0.0)  # (tokens,)
    if not (largest > FP16_MAX).any():
        return Encoded(hidden.astype("<f2").tobytes())
    if (largest >= FP16_OVERFLOW).any():
        raise CodecOverflow("fp16")
    _, exponents = np.frexp(largest)  # largest = m * 2**e with m in [0.5, 1)
    exponents = np.where(largest > FP16_MAX, exponents - _FP16_EXPONENT, 0).astype(np.int8)
    values = np.ldexp(hidden, -exponents[:, None].astype(np.int32)).astype("<f2")
    return Encoded(exponents.tobytes() + values.tobytes(), scaled=True)


def _to_bf16(hidden: Hidden) -> npt.NDArray[np.uint16]:
    bits = np.ascontiguousarray(hidden, dtype=np.float32).view(np.uint32)
    # Round to nearest even on the upper 16 bits: add half, less one where the kept part is even.
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")
    if ((rounded & 0x7F80) == 0x7F80).any():
        raise CodecOverflow("bf16")
    return rounded


def decode(
    payload: bytes | memoryview, codec: Codec, tokens: int, width: int, *, scaled: bool = False
) -> Hidden:
    """Read hidden states from a payload.

    Args:
        payload: The frame's payload.
        codec: Its layout.
        tokens: Number of positions.
        width: Hidden size.
        scaled: Whether exponents come first.

    Returns:
        float32 (tokens, width), a fresh array.

    Raises:
        FrameLengthMismatch: the payload is not exactly that long.
        NonFinite: a value is NaN or infinite, or becomes so by its exponent.
    """
    expected = payload_bytes(codec, tokens, width, scaled=scaled)
    if len(payload) != expected:
        raise FrameLengthMismatch(len(payload), expected)
    exponents = np.frombuffer(payload, np.int8, count=tokens) if scaled else None
    values = memoryview(payload)[tokens if scaled else 0 :]
    if codec is Codec.FP32:
        hidden = np.frombuffer(values, "<f4").astype(np.float32)
    elif codec is Codec.BF16:
        hidden = (np.frombuffer(values, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        hidden = np.frombuffer(values, "<f2").astype(np.float32)
    hidden = hidden.reshape(tokens, width)  # (tokens * width,) -> (tokens, width)
    if exponents is not None:
        with np.errstate(over="ignore", invalid="ignore"):  # overflow and NaN are caught just below
            hidden = np.ldexp(hidden, exponents[:, None].astype(np.int32))
    if not np.isfinite(hidden).all():
        raise NonFinite("incoming")
    return hidden

"""Codecs in torch: the twin of :mod:`lambda_split.wire.codecs`.

Both write the same bytes for the same float32 values; ``tests/vectors/`` holds them to it. What
follows from rounding is done in float32 or on its bits, so that CPU and CUDA agree to the bit.
Little-endian hosts only, as torch itself.

Reading from a device waits until it has computed everything, so each direction does as little of it
as can be: what comes in is checked before it goes to the device, what goes out is read once, and
its rows' magnitudes once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from lambda_split.errors import CodecOverflow, NonFinite
from lambda_split.wire import codecs
from lambda_split.wire.codecs import FP16_MAX, FP16_OVERFLOW, Encoded
from lambda_split.wire.frames import Codec

__all__ = ["decode", "encode", "largest_magnitudes"]

_FP16_EXPONENT = 15  # as in the numpy twin: rows are scaled to below 2**15
_BF16_OVERFLOW = float(np.ldexp(1.0 - 2.0**-9, 128))  # from here on a float32 rounds to infinity


def largest_magnitudes(hidden: torch.Tensor) -> npt.NDArray[np.float32]:
    """Each row's largest magnitude, read from the device; NaN where the row has a NaN.

    Args:
        hidden: (tokens, width), float32, float16 or bfloat16.

    Returns:
        float32 (tokens,).
    """
    largest = hidden.detach().abs().amax(dim=1)  # (tokens, width) -> (tokens,)
    return np.asarray(largest.to(torch.float32).cpu().numpy(), np.float32)


def encode(
    hidden: torch.Tensor, codec: Codec, largest: npt.NDArray[np.float32] | None = None
) -> Encoded:
    """Lay hidden states out for the wire.

    Args:
        hidden: (tokens, width), float32, float16 or bfloat16, on any device.
        codec: The layout.
        largest: Their :func:`largest_magnitudes`, where they have been read already.

    Returns:
        The payload: little-endian, row-major, exponents first where any row needed one.

    Raises:
        NonFinite: a value is NaN or infinite.
        CodecOverflow: a finite value that would be read back as infinity.
    """
    if hidden.numel() == 0:
        return Encoded(b"")
    values = hidden.detach().to(torch.float32)
    if largest is None:
        largest = largest_magnitudes(values)
    if not np.isfinite(largest).all():
        raise NonFinite("outgoing")
    if codec is Codec.FP32:
        return Encoded(_bytes(values))
    if codec is Codec.BF16:
        if (largest >= _BF16_OVERFLOW).any():
            raise CodecOverflow("bf16")
        return Encoded(_bytes(_to_bf16(values)))
    return _encode_fp16(values, largest)


def _encode_fp16(values: torch.Tensor, largest: npt.NDArray[np.float32]) -> Encoded:
    large = largest > FP16_MAX
    if not large.any():
        return Encoded(_bytes(values.to(torch.float16)))
    if (largest >= FP16_OVERFLOW).any():
        raise CodecOverflow("fp16")
    _, exponents = np.frexp(largest)  # largest = m * 2**e with m in [0.5, 1)
    exponents = np.where(large, exponents - _FP16_EXPONENT, 0).astype(np.int8)
    stored = (values * _powers_of_two(-exponents, values.device)).to(torch.float16)
    return Encoded(exponents.tobytes() + _bytes(stored), scaled=True)


def _to_bf16(values: torch.Tensor) -> torch.Tensor:
    bits = values.contiguous().view(torch.int32)
    # Round to nearest even on the upper 16 bits: add half, less one where the kept part is even.
    # Neither sign leaves its range for finite values, so int32 serves as well as uint32.
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).to(torch.int16)


def _powers_of_two(exponents: npt.NDArray[np.int8], device: torch.device) -> torch.Tensor:
    """2**exponents as float32 (tokens, 1), exact (also where it is subnormal)."""
    powers = np.ldexp(np.float32(1), exponents.astype(np.int32))
    return torch.from_numpy(powers).to(device)[:, None]  # (tokens,) -> (tokens, 1)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().cpu().numpy().tobytes()


def decode(
    payload: bytes | memoryview,
    codec: Codec,
    tokens: int,
    width: int,
    *,
    scaled: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Read hidden states from a payload.

    Args:
        payload: The frame's payload.
        codec: Its layout.
        tokens: Number of positions.
        width: Hidden size.
        scaled: Whether exponents come first.
        dtype: What to return; the values are computed in float32.
        device: Where to.

    Returns:
        ``dtype`` (tokens, width) on ``device``, memory of its own.

    Raises:
        FrameLengthMismatch: the payload is not exactly that long.
        NonFinite: a value is NaN or infinite, or becomes so by its exponent or in ``dtype``.
    """
    values = codecs.decode(payload, codec, tokens, width, scaled=scaled)
    hidden = torch.from_numpy(values).to(dtype)
    # The other dtypes reach as far as float32, but for the last half step of bfloat16's rounding.
    if dtype is not torch.float32 and not bool(torch.isfinite(hidden).all()):
        raise NonFinite("incoming")
    return hidden.to(device)

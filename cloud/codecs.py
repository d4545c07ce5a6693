"""Codecs in torch: the twin of :mod:`lambda_split.wire.codecs`.

Both write the same bytes for the same float32 values; ``tests/vectors/`` holds them to it. What
follows from rounding is done in float32 or on its bits, so that CPU and CUDA agree to the bit.
Little-endian hosts only, as torch itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from lambda_split.errors import CodecOverflow, FrameLengthMismatch, NonFinite
from lambda_split.wire.codecs import FP16_MAX, FP16_OVERFLOW, Encoded
from lambda_split.wire.frames import Codec, payload_bytes

__all__ = ["decode", "encode"]

_FP16_EXPONENT = 15  # as in the numpy twin: rows are scaled to below 2**15
_BF16_OVERFLOW = float(np.ldexp(1.0 - 2.0**-9, 128))  # from here on a float32 rounds to infinity


def encode(hidden: torch.Tensor, codec: Codec) -> Encoded:
    """Lay hidden states out for the wire.

    Two transfers from the device: each row's largest magnitude, then the payload.

    Args:
        hidden: (tokens, width), float32, float16 or bfloat16, on any device.
        codec: The layout.

    Returns:
        The payload: little-endian, row-major, exponents first where any row needed one.

    Raises:
        NonFinite: a value is NaN or infinite.
        CodecOverflow: a finite value that would be read back as infinity.
    """
    if hidden.numel() == 0:
        return Encoded(b"")
    values = hidden.detach().to(torch.float32)
    # amax carries NaN along, so each row's largest magnitude tells everything that can go wrong.
    largest = values.abs().amax(dim=1).cpu().numpy()  # (tokens, width) -> (tokens,)
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
    expected = payload_bytes(codec, tokens, width, scaled=scaled)
    if len(payload) != expected:
        raise FrameLengthMismatch(len(payload), expected)
    if tokens * width == 0:
        return torch.zeros(tokens, width, dtype=dtype, device=device)
    # A copy: aligned whatever the exponents' number, and writable, as torch demands.
    data = bytearray(memoryview(payload)[tokens if scaled else 0 :])
    stored = torch.frombuffer(data, dtype=_STORED[codec]).to(device)
    hidden = stored.reshape(tokens, width).to(torch.float32)  # (tokens * width,) -> (tokens, width)
    if scaled:
        exponents = np.frombuffer(payload, np.int8, count=tokens)
        hidden = hidden * _powers_of_two(exponents, hidden.device)
    hidden = hidden.to(dtype)
    if not bool(torch.isfinite(hidden).all()):
        raise NonFinite("incoming")
    return hidden


_STORED = {Codec.FP32: torch.float32, Codec.FP16: torch.float16, Codec.BF16: torch.bfloat16}

"""Tensors of pictures to wire bytes and back, in numpy; device and trunk run this very code.

Only decoding is normative: both sides get the same float32 from the same bytes, so the trunk knows
what the device has. How a sender chooses codes and parameters is its own affair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lambda_split.errors import CodecOverflow, FrameLengthMismatch, NonFinite
from lambda_split.wire import codecs
from lambda_split.wire.bit_packing import pack_codes, unpack_codes
from lambda_split.wire.float8 import E4M3, E5M2, decode_float8, encode_float8
from lambda_split.wire.frames import Codec
from lambda_split.wire.normal_float import normal_values, quantize_normal
from lambda_split.wire.tensor_format import GROUP_BYTES, Base, TensorFormat, payload_bytes
from lambda_split.wire.uniform import quantize_uniform, uniform_values

__all__ = ["decode", "encode", "payload_bytes"]

Tensor = npt.NDArray[np.float32]

_FLOAT8 = {Base.FP8_E4M3: E4M3, Base.FP8_E5M2: E5M2}
_EXTREME = 2.0**120  # below, no sum of reference and decoded difference comes near infinity


def encode(values: Tensor, form: TensorFormat, reference: Tensor | None = None) -> bytes:
    """Lay a tensor out for the wire.

    Args:
        values: float32 (images, channels, ...).
        form: The layout.
        reference: What the receiver decoded before, of the same shape; None at first. Formats
            without ``delta`` do not look at it.

    Returns:
        ``payload_bytes(form, values.shape)`` bytes.

    Raises:
        NonFinite: a value is NaN or infinite.
        CodecOverflow: finite values that the format cannot hold.
    """
    values = np.ascontiguousarray(values, np.float32)
    if not form.delta or reference is None:
        return _encode_plain(values, form)
    largest = _magnitude(values)
    if not math.isfinite(largest):
        raise NonFinite("outgoing")
    with np.errstate(over="ignore"):  # caught just below
        difference = values - reference
    largest = max(largest, _magnitude(difference))
    if not math.isfinite(largest):
        raise CodecOverflow(form.label)
    payload = _encode_plain(difference, form)
    if largest > _EXTREME:
        try:
            decode(payload, form, values.shape, reference)
        except NonFinite as error:
            raise CodecOverflow(form.label) from error
    return payload


def decode(
    payload: bytes | memoryview,
    form: TensorFormat,
    shape: Sequence[int],
    reference: Tensor | None = None,
) -> Tensor:
    """Read a tensor from a payload.

    Args:
        payload: The tensor's bytes and nothing else.
        form: Their layout.
        shape: (images, channels, ...), bounded by the caller.
        reference: The tensor that was decoded before, of the same shape, or None at first; as for
            :func:`encode`.

    Returns:
        float32 of that shape, a fresh array.

    Raises:
        FrameLengthMismatch: the payload is not exactly that long.
        FramePadding: a bit behind the last packed code is set.
        NonFinite: a parameter or a value is NaN or infinite, or the sum with the reference is.
    """
    expected = payload_bytes(form, shape)
    if len(payload) != expected:
        raise FrameLengthMismatch(len(payload), expected)
    values = _decode_plain(memoryview(payload), form, shape)
    if form.delta and reference is not None:
        with np.errstate(over="ignore"):  # caught just below
            values += reference
    if not np.isfinite(values).all():
        raise NonFinite("incoming")
    return values


def _encode_plain(values: Tensor, form: TensorFormat) -> bytes:
    """As :func:`encode`, whatever the format says of differences."""
    if not values.size:
        return b""
    if form.base.grouped:
        return _encode_groups(values, form)
    if form.base in _FLOAT8:
        layout = _FLOAT8[form.base]
        largest = _magnitude(values)
        if not math.isfinite(largest):
            raise NonFinite("outgoing")
        if largest > layout.largest:
            raise CodecOverflow(form.label)
        return encode_float8(values, layout).tobytes()
    encoded = codecs.encode(values.reshape(1, -1), Codec(form.base))
    if encoded.scaled:  # fp16 beyond 65504; there is no room for exponents here
        raise CodecOverflow(form.label)
    return encoded.payload


def _decode_plain(payload: memoryview, form: TensorFormat, shape: Sequence[int]) -> Tensor:
    """As :func:`decode` without the reference; may hold NaN and infinity."""
    count = math.prod(shape)
    if not count:
        return np.zeros(shape, np.float32)
    if form.base.grouped:
        return _decode_groups(payload, form, shape)
    if form.base in _FLOAT8:
        values = decode_float8(np.frombuffer(payload, np.uint8), _FLOAT8[form.base])
    else:
        values = codecs.decode(payload, Codec(form.base), 1, count)
    return values.reshape(shape)  # (count,) or (1, count) -> shape


def _encode_groups(values: Tensor, form: TensorFormat) -> bytes:
    groups = values.reshape(_groups(values.shape, form), -1)  # (groups, values of each)
    lows, highs = groups.min(axis=1, keepdims=True), groups.max(axis=1, keepdims=True)
    if not (np.isfinite(lows).all() and np.isfinite(highs).all()):  # NaN is either's least
        raise NonFinite("outgoing")
    quantize = quantize_normal if form.base.normal else quantize_uniform
    parameters, codes = quantize(groups, lows, highs, form.base.bits)
    return parameters.astype("<f4").tobytes() + pack_codes(codes.reshape(-1), form.base.bits)


def _decode_groups(payload: memoryview, form: TensorFormat, shape: Sequence[int]) -> Tensor:
    bits, count, groups = form.base.bits, math.prod(shape), _groups(shape, form)
    codes_at = groups * GROUP_BYTES
    # (count,) -> (groups, values of each)
    codes = unpack_codes(payload[codes_at:], bits, count).reshape(groups, -1)
    # (groups * 2,) -> (groups, 2)
    parameters = np.frombuffer(payload[:codes_at], "<f4").astype(np.float32).reshape(groups, 2)
    if not np.isfinite(parameters).all():
        raise NonFinite("incoming")
    values_of = normal_values if form.base.normal else uniform_values
    levels = 1 << bits
    if codes.shape[1] < levels:
        return values_of(parameters, codes, bits).reshape(shape)
    # Each group's levels are computed once and looked up, with the same results.
    table = values_of(parameters, np.arange(levels, dtype=np.uint8)[None], bits)
    rows = np.arange(groups)[:, None] * levels
    return table.take(codes + rows if groups > 1 else codes).reshape(shape)


def _groups(shape: Sequence[int], form: TensorFormat) -> int:
    """How many groups a tensor's values are in: images, or images times channels."""
    return shape[0] * shape[1] if form.per_channel else shape[0]


def _magnitude(values: Tensor) -> float:
    """The greatest magnitude, NaN if any value is."""
    return max(-float(values.min()), float(values.max())) if values.size else 0.0

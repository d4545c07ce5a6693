"""What is fuzzed of pictures without a socket: tensors in all formats, and frames."""

from __future__ import annotations

import numpy as np

from lambda_split.errors import (
    CodecOverflow,
    FrameLengthMismatch,
    FrameOversized,
    FramePadding,
    NonFinite,
    ProtocolError,
)
from lambda_split.wire.frames import HEADER_BYTES
from lambda_split.wire.pictures.frames import parse_picture_frame
from lambda_split.wire.tensor_codecs import Tensor, decode, encode, payload_bytes
from lambda_split.wire.tensor_format import TENSOR_FORMATS, TensorFormat
from tests.fuzz.readings import Reading
from tests.fuzz.telling import serializes

__all__ = ["MAX_PAYLOAD", "REFERENCES", "picture_frames", "tensor_codecs"]

MAX_PAYLOAD = 256
_FLOAT32_MAX = float(np.finfo(np.float32).max)
# What a difference may be coded against; the last makes sums that float32 cannot hold.
REFERENCES = ("none", "zeros", "normal", "extreme")


def tensor_codecs(data: bytes) -> None:
    """What is read is finite and of the promised shape; written again it can be read again."""
    reading = Reading(data)
    form = reading.choice(TENSOR_FORMATS)
    # Beyond 256 values in a group, so that levels are looked up as well as computed.
    shape = (reading.below(4), reading.below(5), reading.below(20), reading.below(20))
    reference = _reference(reading.choice(REFERENCES), shape)
    expected = payload_bytes(form, shape)
    exact, payload = reading.below(4), reading.rest()
    if exact:  # most would be rejected for their length alone
        payload = payload[:expected].ljust(expected, b"\0")
    try:
        values = decode(payload, form, shape, reference)
    except (FrameLengthMismatch, FramePadding, NonFinite) as error:
        serializes(error)
        return
    assert len(payload) == expected
    _is_tensor(values, shape)
    _can_be_written(values, form, reference, payload)


def _is_tensor(values: Tensor, shape: tuple[int, ...]) -> None:
    assert values.shape == shape
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert values.flags.writeable  # no view into the message


def _can_be_written(
    values: Tensor, form: TensorFormat, reference: Tensor | None, payload: bytes
) -> None:
    coded_difference = form.delta and reference is not None
    try:
        again = encode(values, form, reference)
    except CodecOverflow:
        # A sum is rounded: the difference to it may be just beyond what the format holds.
        assert coded_difference
        return
    assert len(again) == len(payload)
    read = decode(again, form, values.shape, reference)
    _is_tensor(read, values.shape)
    if coded_difference or not values.size:
        return
    if not form.base.grouped:
        assert again == payload
    elif not form.base.normal:  # the least and the greatest are levels of their group
        assert (read.min(), read.max()) == (values.min(), values.max())


def _reference(kind: str, shape: tuple[int, ...]) -> Tensor | None:
    if kind == "none":
        return None
    if kind == "normal":
        return np.random.default_rng(0).standard_normal(shape, np.float32)
    return np.full(shape, _FLOAT32_MAX if kind == "extreme" else 0, np.float32)


def picture_frames(data: bytes) -> None:
    """A frame that is taken is written back as the same bytes, and is no longer than it may be."""
    try:
        frame = parse_picture_frame(data, max_payload=MAX_PAYLOAD)
    except ProtocolError as error:
        serializes(error)
        if isinstance(error, FrameOversized):
            assert len(data) >= HEADER_BYTES
        return
    assert frame.serialize() == data
    assert frame.settings_bytes <= len(frame.payload) <= MAX_PAYLOAD

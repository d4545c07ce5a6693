"""What the numpy codecs keep of a value, whatever the value."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lambda_split.errors import CodecOverflow, FrameLengthMismatch, NonFinite
from lambda_split.wire.codecs import FP16_MAX, FP16_OVERFLOW, decode, encode
from lambda_split.wire.frames import Codec, payload_bytes

FLOAT32_MAX = float(np.finfo(np.float32).max)
BF16_MAX = 2.0**127 * (2 - 2.0**-7)
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6)


def hidden_states(largest):
    elements = st.floats(-largest, largest, width=32, allow_subnormal=True)
    return SHAPES.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=elements))


def through(hidden, codec):
    encoded = encode(hidden, codec)
    tokens, width = hidden.shape
    assert len(encoded.payload) == payload_bytes(codec, tokens, width, scaled=encoded.scaled)
    return decode(encoded.payload, codec, tokens, width, scaled=encoded.scaled), encoded


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@given(hidden_states(FLOAT32_MAX))
def test_fp32_keeps_every_bit(hidden):
    found, encoded = through(hidden, Codec.FP32)
    assert found.tobytes() == hidden.tobytes()
    assert not encoded.scaled


@settings(deadline=None)
@given(hidden_states(FP16_MAX))
def test_fp16_is_numpy_s_rounding_where_it_reaches(hidden):
    found, encoded = through(hidden, Codec.FP16)
    assert not encoded.scaled
    np.testing.assert_array_equal(found, hidden.astype(np.float16).astype(np.float32))


@settings(deadline=None)
@given(hidden_states(float(np.nextafter(np.float32(FP16_OVERFLOW), np.float32(0)))))
def test_fp16_loses_at_most_half_a_step_of_each_row_s_largest_value(hidden):
    found, encoded = through(hidden, Codec.FP16)
    largest = np.abs(hidden).max(axis=1)
    assert encoded.scaled == bool((largest > FP16_MAX).any())
    # 11 bits of significand; below fp16's normal range a fixed step, times the row's scale
    scale = np.where(largest > FP16_MAX, largest * 2.0**-14, 1.0)[:, None].astype(np.float64)
    step = np.maximum(np.abs(hidden.astype(np.float64)) * 2.0**-11, scale * 2.0**-25)
    assert (np.abs(found.astype(np.float64) - hidden) <= step).all()


@settings(deadline=None)
@given(hidden_states(BF16_MAX))
def test_bf16_rounds_to_the_nearest(hidden):
    found, encoded = through(hidden, Codec.BF16)
    assert not encoded.scaled
    kept = hidden.view(np.uint32) & 0xFFFF0000  # the neighbor towards zero
    neighbors = [kept, kept + 0x10000]
    wide = hidden.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        errors = [np.abs(bits.view(np.float32).astype(np.float64) - wide) for bits in neighbors]
    assert (np.abs(found.astype(np.float64) - wide) == np.minimum(*errors)).all()


@pytest.mark.parametrize(
    ("values", "payload"),
    [
        # exactly between two fp16 values: to the one whose last bit is 0
        ([1 + 2**-11, 1 + 3 * 2**-11], "003c 023c"),
        ([2049.0, 2051.0], "0068 0268"),
        # the last value below scaling; fp16's smallest subnormal; half of it
        ([65504.0, 2**-24, 2**-25], "ff7b 0100 0000"),
        ([-0.0, 0.0], "0080 0000"),
    ],
)
def test_fp16_bytes(values, payload):
    encoded = encode(np.array([values], np.float32), Codec.FP16)
    assert encoded.payload == bytes.fromhex(payload)
    assert not encoded.scaled


def test_scaled_fp16_bytes():
    hidden = np.array([[65536.0, 3.0], [1.0, -2.0], [-1e6, 0.0]], np.float32)
    encoded = encode(hidden, Codec.FP16)
    assert encoded.scaled
    # 65536 = 0.5 * 2**17: exponent 2, stored 16384 and 0.75; 1e6 = 0.95.. * 2**20: exponent 5
    assert encoded.payload == bytes.fromhex("02 00 05  0074 003a  003c 00c0  a1f7 0000")


def test_bf16_bytes():
    bits = [0x3F808000, 0x3F818000, 0x3F808001, 0x80000001, 0x00008001, 0x7F7F7FFF]
    hidden = np.array([bits], np.uint32).view(np.float32)
    assert encode(hidden, Codec.BF16).payload == bytes.fromhex("803f 823f 813f 0080 0100 7f7f")


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_not_sent(codec, value):
    with pytest.raises(NonFinite) as caught:
        encode(np.array([[0.0, value]], np.float32), codec)
    assert caught.value.where == "outgoing"


@pytest.mark.parametrize(("codec", "payload"), [(1, "0000c07f"), (2, "007e"), (3, "80ff")])
def test_non_finite_values_are_not_received(codec, payload):
    with pytest.raises(NonFinite) as caught:
        decode(bytes.fromhex(payload), Codec(codec), 1, 1)
    assert caught.value.where == "incoming"


def test_an_exponent_that_overflows_is_non_finite():
    with pytest.raises(NonFinite):
        decode(bytes.fromhex("7f 0040"), Codec.FP16, 1, 1, scaled=True)


@pytest.mark.parametrize(("codec", "first"), [(Codec.BF16, 0x7F7F8000), (Codec.FP16, 0x7F7FF000)])
def test_values_that_would_come_back_as_infinity_are_not_sent(codec, first):
    too_large, largest = np.array([first, first - 1], np.uint32).view(np.float32)
    with pytest.raises(CodecOverflow) as caught:
        encode(np.array([[-too_large]], np.float32), codec)
    assert caught.value.codec == codec.label
    assert np.isfinite(through(np.array([[largest]], np.float32), codec)[0]).all()


@pytest.mark.parametrize("size", [0, 7, 9, 10])
def test_a_payload_of_another_length_is_rejected(size):
    with pytest.raises(FrameLengthMismatch):
        decode(bytes(size), Codec.FP16, 2, 2)


@pytest.mark.parametrize("codec", list(Codec))
def test_no_positions_are_no_bytes(codec):
    found, encoded = through(np.empty((0, 3), np.float32), codec)
    assert encoded.payload == b""
    assert found.shape == (0, 3)


def test_what_is_read_can_be_written_to():
    payload = bytes(8)
    decode(payload, Codec.FP32, 1, 2)[:] = 1
    assert payload == bytes(8)

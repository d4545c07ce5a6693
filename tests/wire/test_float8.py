"""8-bit floats are PyTorch's, value for value, and the nearest ones by definition."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lambda_split.wire.float8 import E4M3, E5M2, decode_float8, encode_float8

LAYOUTS = [
    pytest.param(E4M3, torch.float8_e4m3fn, id="e4m3"),
    pytest.param(E5M2, torch.float8_e5m2, id="e5m2"),
]


def bits_of_interest():
    """float32 bits: every fp16 value, every bf16 value and its neighbors, and random ones."""
    fp16 = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
    upper = np.arange(2**16, dtype=np.uint32) << 16
    random = np.random.default_rng(0).integers(0, 2**32, 500_000, dtype=np.uint32)
    return np.concatenate([fp16, upper, upper + 1, upper - np.uint32(1), random])


@pytest.mark.parametrize(("layout", "dtype"), LAYOUTS)
def test_codes_are_pytorch_s(layout, dtype):
    values = bits_of_interest().view(np.float32)
    values = values[np.abs(values) <= layout.largest]
    expected = torch.from_numpy(values).to(dtype).view(torch.uint8).numpy()
    np.testing.assert_array_equal(encode_float8(values, layout), expected)


@pytest.mark.parametrize(("layout", "dtype"), LAYOUTS)
def test_ties_and_their_neighbors_are_pytorch_s(layout, dtype):
    values = decode_float8(np.arange(layout.largest_code + 1, dtype=np.uint8), layout)
    middles = (values[1:] + values[:-1]) / 2
    around = [middles, np.nextafter(middles, np.float32(0)), np.nextafter(middles, np.float32(1e9))]
    cases = np.concatenate([*around, -np.concatenate(around)])
    expected = torch.from_numpy(cases).to(dtype).view(torch.uint8).numpy()
    np.testing.assert_array_equal(encode_float8(cases, layout), expected)


@pytest.mark.parametrize("layout", [E4M3, E5M2], ids=["e4m3", "e5m2"])
def test_the_largest_value_is_the_last_that_rounds_down(layout):
    """Not PyTorch's rule: whether E4M3 becomes NaN or 448 beyond it depends on the version."""
    below, last = decode_float8(np.arange(2, dtype=np.uint8) + layout.largest_code - 1, layout)
    middle = last + (last - below) / 2  # to the value that would be next
    tie_stays = layout.largest_code % 2 == 0
    assert layout.largest == (middle if tie_stays else np.nextafter(middle, np.float32(0)))
    codes = encode_float8(np.array([layout.largest, -layout.largest], np.float32), layout)
    assert codes.tolist() == [layout.largest_code, layout.largest_code | 0x80]


@pytest.mark.parametrize(("layout", "dtype"), LAYOUTS)
def test_values_are_pytorch_s(layout, dtype):
    codes = np.arange(256, dtype=np.uint8)
    found = decode_float8(codes, layout)
    expected = torch.from_numpy(codes).view(dtype).float().numpy()
    finite = (codes & 0x7F) <= layout.largest_code
    assert np.isfinite(expected[finite]).all()
    # Bits: -0.0 is not 0.0.
    np.testing.assert_array_equal(found[finite].view(np.uint32), expected[finite].view(np.uint32))
    assert np.isnan(found[~finite]).all()
    assert not np.isfinite(expected[~finite]).any()


@pytest.mark.parametrize(("layout", "dtype"), LAYOUTS)
def test_every_value_is_its_own_code(layout, dtype):
    codes = np.arange(256, dtype=np.uint8)
    codes = codes[(codes & 0x7F) <= layout.largest_code]
    np.testing.assert_array_equal(encode_float8(decode_float8(codes, layout), layout), codes)


@pytest.mark.parametrize(
    ("layout", "values", "codes"),
    [
        (E4M3, [0.0, -0.0, 1.0, -1.0, 448.0, 2**-6, 2**-9], "00 80 38 b8 7e 08 01"),
        # half the smallest is a tie with 0; the double rounding of 1.0625 + 2**-20 would be a tie
        (E4M3, [2**-10, 1.5 * 2**-10, 1.0625, 1.0625 + 2**-20], "00 01 38 39"),
        (E5M2, [0.0, -0.0, 1.0, -1.0, 57344.0, 2**-14, 2**-16], "00 80 3c bc 7b 04 01"),
        (E5M2, [2**-17, 1.5 * 2**-17, 1.125, 1.125 + 2**-20], "00 01 3c 3d"),
    ],
)
def test_bytes(layout, values, codes):
    assert encode_float8(np.array(values, np.float32), layout).tobytes() == bytes.fromhex(codes)


@pytest.mark.parametrize(("layout", "dtype"), LAYOUTS)
@given(data=st.data())
def test_no_other_value_is_nearer(layout, dtype, data):
    largest = layout.largest
    value = data.draw(st.floats(-largest, largest, width=32))
    codes = np.arange(layout.largest_code + 1, dtype=np.uint8)
    known = decode_float8(codes, layout).astype(np.float64)
    code = encode_float8(np.array([value], np.float32), layout)
    found = float(decode_float8(code, layout)[0])
    least = np.abs(known - abs(value)).min()
    assert abs(found - value) == least
    nearest = np.flatnonzero(np.abs(known - abs(value)) == least)
    assert len(nearest) == 1 or code[0] % 2 == 0


def test_shape_is_kept():
    values = np.zeros((2, 3, 4), np.float32)[:, ::2]
    assert encode_float8(values, E4M3).shape == (2, 2, 4)
    assert decode_float8(np.zeros((2, 5), np.uint8), E5M2).shape == (2, 5)

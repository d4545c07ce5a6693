"""Codes packed to the bit, against literal bytes and one large integer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_split.errors import FrameLengthMismatch, FramePadding
from lambda_split.wire.bit_packing import pack_codes, packed_bytes, unpack_codes

BITS = range(1, 9)


@pytest.mark.parametrize(
    ("bits", "codes", "packed"),
    [
        (1, [1, 0, 1, 1, 0, 0, 0, 0, 1], "0d 01"),
        (2, [1, 2, 3, 0, 2], "39 02"),
        # 001 010 011 100 101 110 111 000, lowest first from the right of each byte
        (3, [1, 2, 3, 4, 5, 6, 7, 0], "d1 58 1f"),
        (3, [7, 7, 7], "ff 01"),
        (4, [1, 2, 15, 0, 9], "21 0f 09"),
        (5, [31, 0, 31], "1f 7c"),
        (6, [63, 0, 1, 32], "3f 10 80"),
        (7, [127, 0, 127], "7f c0 1f"),
        (8, [1, 255, 0], "01 ff 00"),
        *((bits, [], "") for bits in BITS),
    ],
)
def test_bytes_both_ways(bits, codes, packed):
    assert pack_codes(np.array(codes, np.uint8), bits) == bytes.fromhex(packed)
    assert unpack_codes(bytes.fromhex(packed), bits, len(codes)).tolist() == codes


CODES = st.sampled_from(BITS).flatmap(
    lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, 2**bits - 1), max_size=70))
)


@given(CODES)
def test_the_stream_is_one_little_endian_integer(case):
    bits, codes = case
    packed = pack_codes(np.array(codes, np.uint8), bits)
    assert int.from_bytes(packed, "little") == sum(c << i * bits for i, c in enumerate(codes))
    assert len(packed) == packed_bytes(len(codes), bits) == -(-len(codes) * bits // 8)
    found = unpack_codes(memoryview(packed), bits, len(codes))
    assert found.dtype == np.uint8
    assert found.tolist() == codes


@given(CODES, st.integers(0, 7))
def test_a_bit_behind_the_last_code_is_rejected(case, at):
    bits, codes = case
    packed = bytearray(pack_codes(np.array(codes, np.uint8), bits))
    used = len(codes) * bits % 8
    if not used or at < used:
        return
    packed[-1] |= 1 << at
    with pytest.raises(FramePadding) as caught:
        unpack_codes(bytes(packed), bits, len(codes))
    assert caught.value.padding == 1 << (at - used)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("change", [-1, 1])
def test_another_length_is_rejected(bits, change):
    expected = packed_bytes(11, bits)
    with pytest.raises(FrameLengthMismatch) as caught:
        unpack_codes(bytes(expected + change), bits, 11)
    assert (caught.value.length, caught.value.expected) == (expected + change, expected)


@pytest.mark.parametrize("bits", BITS)
def test_codes_that_are_every_other_of_an_array(bits):
    codes = (np.arange(40) % (1 << bits)).astype(np.uint8)
    assert pack_codes(codes[::2], bits) == pack_codes(codes[::2].copy(), bits)

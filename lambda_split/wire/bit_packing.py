"""Codes of 1 to 8 bits, packed without gaps, eight at a time.

The payload is read as one stream of bits, each byte's lowest first: code *i* of *b* bits takes bits
*i·b* to *(i+1)·b − 1* of it, lowest first. So eight codes fill exactly *b* bytes, and are the low
*8·b* bits of one little-endian 64-bit word. In such a word packing is three steps that each join
neighbours (two codes, two pairs, two fours)::

    byte lanes   ....dddd ....cccc ....bbbb ....aaaa       b = 4
    16-bit lanes ........ ddddcccc ........ bbbbaaaa
    32-bit lanes ........ ........ ddddcccc bbbbaaaa

Bits behind the last code are 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lambda_split.errors import FrameLengthMismatch, FramePadding

__all__ = ["pack_codes", "packed_bytes", "unpack_codes"]

Codes = npt.NDArray[np.uint8]


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of that many packed codes."""
    return (count * bits + 7) // 8


def pack_codes(codes: Codes, bits: int) -> bytes:
    """Pack codes to the bit.

    Args:
        codes: uint8 (count,), each below 2**bits.
        bits: 1 to 8.

    Returns:
        ``packed_bytes(count, bits)`` bytes.
    """
    if bits == 8:
        return codes.tobytes()
    words = np.zeros(-(-codes.size // 8), "<u8")
    words.view(np.uint8)[: codes.size] = codes  # one code a byte
    for upper, gap in _joins(bits):
        moving = words & upper
        words ^= moving
        moving >>= gap
        words |= moving
    return words.view(_low_bytes(bits))["low"].tobytes()[: packed_bytes(codes.size, bits)]


def unpack_codes(payload: bytes | memoryview, bits: int, count: int) -> Codes:
    """Read packed codes.

    Args:
        payload: The packed codes and nothing else.
        bits: 1 to 8.
        count: Number of codes.

    Returns:
        uint8 (count,), possibly a view that cannot be written to.

    Raises:
        FrameLengthMismatch: the payload is not exactly that long.
        FramePadding: a bit behind the last code is set.
    """
    expected = packed_bytes(count, bits)
    if len(payload) != expected:
        raise FrameLengthMismatch(len(payload), expected)
    packed = np.frombuffer(payload, np.uint8)
    used = count * bits % 8
    if used and packed[-1] >> used:
        raise FramePadding(int(packed[-1] >> used))
    if bits == 8:
        return packed
    words = np.zeros(-(-count // 8), "<u8")
    whole = count // 8  # words that the payload fills
    words.view(_low_bytes(bits))["low"][:whole] = packed[: whole * bits].view(f"V{bits}")
    if whole < words.size:
        rest = packed[whole * bits :]
        words[whole:].view(np.uint8)[: rest.size] = rest
    for upper, gap in reversed(_joins(bits)):
        moving = words & (upper >> gap)
        words ^= moving
        moving <<= gap
        words |= moving
    return words.view(np.uint8)[:count]


def _low_bytes(bits: int) -> np.dtype[np.void]:
    """A word seen as its low bytes, as many as eight codes fill; one copy then moves them all."""
    return np.dtype({"names": ["low"], "formats": [f"V{bits}"], "offsets": [0], "itemsize": 8})


def _joins(bits: int) -> list[tuple[int, int]]:
    """The steps of packing: the mask of what moves, and by how many bits it moves down."""
    steps = []
    for lanes in (1, 2, 4):  # bytes of a lane before the step
        codes = (1 << bits * lanes) - 1
        upper = sum(codes << at for at in range(8 * lanes, 64, 16 * lanes))
        steps.append((upper, (8 - bits) * lanes))
    return steps

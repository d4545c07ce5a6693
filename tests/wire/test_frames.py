"""Frames as literal bytes in both directions, each rejection, and round trips."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_split.errors import (
    FrameLengthMismatch,
    FrameOversized,
    FrameTruncated,
    FrameUnknownCodec,
    FrameUnknownFlags,
    FrameUnknownKind,
    FrameVersion,
    ProtocolError,
)
from lambda_split.wire.frames import (
    HEADER_BYTES,
    MAX_U32,
    Codec,
    Frame,
    FrameKind,
    parse_frame,
    payload_bytes,
)

FORWARD = Frame(
    kind=FrameKind.FORWARD,
    codec=Codec.FP16,
    start=258,
    tokens=2,
    sequence=5,
    payload=b"\x01\x02\x03\x04\x05\x06\x07\x08",
    reply=1,
)
FORWARD_BYTES = bytes.fromhex(
    "01 01 00 02"  # version 1, forward, no flags, fp16
    "02 01 00 00"  # start 258
    "02 00 00 00"  # 2 tokens
    "01 00 00 00"  # reply 1
    "05 00 00 00"  # sequence 5
    "00 00 00 00"  # micros, 0 in a forward
    "08 00 00 00"  # 8 bytes of payload
    "01 02 03 04 05 06 07 08"
)
HIDDEN = Frame(
    kind=FrameKind.HIDDEN,
    codec=Codec.FP32,
    start=259,
    tokens=1,
    sequence=5,
    payload=b"\x00\x00\x80\x3f\x00\x00\x00\xc0",
    micros=70000,
)
HIDDEN_BYTES = bytes.fromhex(
    "01 02 00 01"  # version 1, hidden, no flags, fp32
    "03 01 00 00"  # start 259
    "01 00 00 00"  # 1 token
    "00 00 00 00"  # reply, 0 in a hidden
    "05 00 00 00"  # sequence 5
    "70 11 01 00"  # 70000 microseconds
    "08 00 00 00"  # 8 bytes of payload
    "00 00 80 3f 00 00 00 c0"
)
SCALED = Frame(
    kind=FrameKind.HIDDEN,
    codec=Codec.FP16,
    start=0,
    tokens=2,
    sequence=MAX_U32,
    payload=b"\x00\xff\x00\x3c\x00\x3c\x00\x3c\x00\x3c",
    scaled=True,
)
SCALED_BYTES = bytes.fromhex(
    "01 02 01 02"  # version 1, hidden, scaled, fp16
    "00 00 00 00 02 00 00 00 00 00 00 00"
    "ff ff ff ff"  # the last sequence number
    "00 00 00 00"
    "0a 00 00 00"  # 2 exponents and 2 x 2 values
    "00 ff 00 3c 00 3c 00 3c 00 3c"
)
BFLOAT = Frame(kind=FrameKind.FORWARD, codec=Codec.BF16, start=0, tokens=0, sequence=0, payload=b"")
BFLOAT_BYTES = bytes.fromhex("01 01 00 03" + "00 00 00 00" * 6)

LITERALS = {
    "forward": (FORWARD, FORWARD_BYTES),
    "hidden": (HIDDEN, HIDDEN_BYTES),
    "scaled": (SCALED, SCALED_BYTES),
    "empty-bf16": (BFLOAT, BFLOAT_BYTES),
}


@pytest.mark.parametrize("name", LITERALS)
def test_a_frame_is_these_bytes(name):
    frame, data = LITERALS[name]
    assert frame.serialize() == data


@pytest.mark.parametrize("name", LITERALS)
def test_these_bytes_are_the_frame(name):
    frame, data = LITERALS[name]
    assert parse_frame(data, width=2, max_tokens=2) == frame


def test_the_payload_is_not_copied():
    data = bytearray(FORWARD_BYTES)
    frame = parse_frame(memoryview(data), width=2, max_tokens=2)
    data[-1] = 0xEE
    assert frame.payload[-1] == 0xEE


def changed(position, value, data=FORWARD_BYTES):
    return data[:position] + bytes([value]) + data[position + 1 :]


REJECTED = {
    "empty": (b"", FrameTruncated, {"length": 0, "needed": 28}),
    "header cut": (FORWARD_BYTES[:27], FrameTruncated, {"length": 27, "needed": 28}),
    "version": (changed(0, 3), FrameVersion, {"found": 3, "expected": 1}),
    "kind": (changed(1, 9), FrameUnknownKind, {"kind": 9}),
    "flags": (changed(2, 0x81), FrameUnknownFlags, {"flags": 0x81}),
    "codec": (changed(3, 0), FrameUnknownCodec, {"codec": 0}),
    "tokens": (changed(8, 3), FrameOversized, {"length": 12, "limit": 8}),
    "tokens, absurd": (
        changed(11, 0xFF),
        FrameOversized,
        {"length": 0xFF000002 * 4, "limit": 8},
    ),
    "announced length": (changed(24, 7), FrameLengthMismatch, {"length": 7, "expected": 8}),
    "tokens below length": (changed(8, 1), FrameLengthMismatch, {"length": 8, "expected": 4}),
    "scaled without exponents": (changed(2, 1), FrameLengthMismatch, {"length": 8, "expected": 10}),
    "payload cut": (FORWARD_BYTES[:-1], FrameLengthMismatch, {"length": 7, "expected": 8}),
    "trailing": (FORWARD_BYTES + b"\0", FrameLengthMismatch, {"length": 9, "expected": 8}),
    "no payload": (FORWARD_BYTES[:28], FrameLengthMismatch, {"length": 0, "expected": 8}),
}


@pytest.mark.parametrize("name", REJECTED)
def test_a_malformed_frame_is_rejected(name):
    data, error, fields = REJECTED[name]
    with pytest.raises(error) as caught:
        parse_frame(data, width=2, max_tokens=2)
    assert caught.value.wire_fields() == fields


U32 = st.integers(0, MAX_U32)


@given(st.data())
def test_parsing_undoes_serializing(data):
    codec = data.draw(st.sampled_from(Codec))
    tokens = data.draw(st.integers(0, 5))
    width = data.draw(st.integers(1, 4))
    scaled = data.draw(st.booleans())
    size = payload_bytes(codec, tokens, width, scaled=scaled)
    frame = Frame(
        kind=data.draw(st.sampled_from(FrameKind)),
        codec=codec,
        start=data.draw(U32),
        tokens=tokens,
        sequence=data.draw(U32),
        payload=data.draw(st.binary(min_size=size, max_size=size)),
        reply=data.draw(U32),
        micros=data.draw(U32),
        scaled=scaled,
    )
    assert parse_frame(frame.serialize(), width=width, max_tokens=5) == frame


@given(
    st.binary(max_size=80)
    | st.builds(
        changed,
        st.integers(0, HEADER_BYTES - 1),
        st.integers(0, 255),
    )
)
def test_any_bytes_are_a_frame_or_a_protocol_error(data):
    try:
        frame = parse_frame(data, width=2, max_tokens=4)
    except ProtocolError:
        return
    assert frame.serialize() == data


def test_compute_time_beyond_32_bits_is_capped():
    frame = Frame(FrameKind.HIDDEN, Codec.FP32, 0, 0, 0, b"", micros=2**40)
    assert parse_frame(frame.serialize(), width=2, max_tokens=1).micros == MAX_U32


def test_codecs_have_names():
    assert [codec.label for codec in Codec] == ["fp32", "fp16", "bf16"]
    assert [Codec.from_label(codec.label) for codec in Codec] == list(Codec)
    assert Codec.from_label("FP16") is None
    assert Codec.from_label("int3") is None

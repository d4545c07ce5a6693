"""Frames of pictures as literal bytes in both directions, each rejection, and round trips."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_split.errors import ProtocolError
from lambda_split.wire.frames import HEADER_BYTES, MAX_U32
from lambda_split.wire.pictures.frames import PictureFrame, PictureFrameKind, parse_picture_frame
from lambda_split.wire.pictures.settings import parse_settings
from lambda_split.wire.tensor_format import TENSOR_FORMATS, Base, TensorFormat
from tests.vectors.reading import named, read_vectors, written_again

VECTORS = read_vectors("picture_frames.json")

PICTURE = PictureFrame(
    kind=PictureFrameKind.PICTURE,
    format=TensorFormat(Base.FP16),
    step=0,
    tensors=2,
    sequence=4,
    payload=b"{}\x00\x3c\x00\xc0",
    settings_bytes=2,
)
PICTURE_BYTES = bytes.fromhex(
    "01 03 00 02"  # version 1, picture, no flags, fp16
    "00 00 00 00"  # step 0
    "02 00 00 00"  # 2 tensors
    "02 00 00 00"  # 2 bytes of settings
    "04 00 00 00"  # sequence 4
    "00 00 00 00"  # micros, 0 in a picture
    "06 00 00 00"  # 6 bytes of payload
    "7b 7d 00 3c 00 c0"
)
STEP = PictureFrame(
    kind=PictureFrameKind.STEP,
    format=TensorFormat(Base.NF4, per_channel=True, delta=True),
    step=258,
    tensors=0,
    sequence=5,
    payload=b"",
)
STEP_BYTES = bytes.fromhex(
    "01 04 00 d3"  # version 1, step, no flags, nf4-channel-delta
    "02 01 00 00"  # step 258
    "00 00 00 00 00 00 00 00"  # no tensors, no settings
    "05 00 00 00"  # sequence 5
    "00 00 00 00 00 00 00 00"
)
NOISE = PictureFrame(
    kind=PictureFrameKind.NOISE,
    format=TensorFormat(Base.INT8),
    step=258,
    tensors=1,
    sequence=MAX_U32,
    payload=b"\x00\x00\x00\x00\x00\x00\x80\x3f\x00\xff",
    micros=70000,
)
NOISE_BYTES = bytes.fromhex(
    "01 05 00 0f"  # version 1, noise, no flags, int8
    "02 01 00 00"  # step 258
    "01 00 00 00"  # 1 tensor
    "00 00 00 00"  # no settings
    "ff ff ff ff"  # the last sequence number
    "70 11 01 00"  # 70000 microseconds
    "0a 00 00 00"  # low, high, 2 codes
    "00 00 00 00 00 00 80 3f 00 ff"
)
LITERALS = {
    "picture": (PICTURE, PICTURE_BYTES),
    "step": (STEP, STEP_BYTES),
    "noise": (NOISE, NOISE_BYTES),
}


@pytest.mark.parametrize("name", LITERALS)
def test_a_frame_is_these_bytes(name):
    frame, data = LITERALS[name]
    assert frame.serialize() == data


@pytest.mark.parametrize("name", LITERALS)
def test_these_bytes_are_the_frame(name):
    frame, data = LITERALS[name]
    assert parse_picture_frame(data, max_payload=10) == frame
    assert frame.tokens == 1


def test_the_payload_is_not_copied():
    data = bytearray(PICTURE_BYTES)
    frame = parse_picture_frame(memoryview(data), max_payload=6)
    data[-1] = 0xEE
    assert frame.payload[-1] == 0xEE


def test_the_committed_file_is_what_the_script_writes(tmp_path):
    names = ("picture_frames.json",)
    written, committed = written_again("make_picture_vectors.py", names, tmp_path)
    assert written == committed


@pytest.mark.parametrize("vector", **named(VECTORS["frames"]))
def test_a_vector_s_bytes_mean_its_fields_and_back(vector):
    data = bytes.fromhex(vector["hex"])
    frame = parse_picture_frame(data, max_payload=VECTORS["max_payload"])
    found = {
        "kind": frame.kind.name.lower(),
        "format": frame.format.label,
        "step": frame.step,
        "tensors": frame.tensors,
        "settings_bytes": frame.settings_bytes,
        "sequence": frame.sequence,
        "micros": frame.micros,
        "payload": bytes(frame.payload).hex(),
    }
    assert found == vector["frame"]
    assert frame.serialize() == data


@pytest.mark.parametrize(
    "vector", **named([each for each in VECTORS["frames"] if each["frame"]["kind"] == "picture"])
)
def test_a_vector_s_settings_can_be_read(vector):
    payload = bytes.fromhex(vector["frame"]["payload"])
    settings = parse_settings(payload[: vector["frame"]["settings_bytes"]])
    assert (settings.images, settings.height, settings.width) == (1, 2, 1)


@pytest.mark.parametrize("vector", **named(VECTORS["frames_rejected"]))
def test_a_malformed_frame_is_rejected_with_its_error(vector):
    with pytest.raises(ProtocolError) as caught:
        parse_picture_frame(bytes.fromhex(vector["hex"]), max_payload=VECTORS["max_payload"])
    assert caught.value.code == vector["error"]
    assert caught.value.wire_fields() == vector["fields"]


def changed(position, value, data=PICTURE_BYTES):
    return data[:position] + bytes([value]) + data[position + 1 :]


U32 = st.integers(0, MAX_U32)


@given(st.data())
def test_parsing_undoes_serializing(data):
    payload = data.draw(st.binary(max_size=20))
    frame = PictureFrame(
        kind=data.draw(st.sampled_from(PictureFrameKind)),
        format=data.draw(st.sampled_from(TENSOR_FORMATS)),
        step=data.draw(U32),
        tensors=data.draw(U32),
        sequence=data.draw(U32),
        payload=payload,
        settings_bytes=data.draw(st.integers(0, len(payload))),
        micros=data.draw(U32),
    )
    assert parse_picture_frame(frame.serialize(), max_payload=20) == frame


@given(
    st.binary(max_size=80)
    | st.builds(changed, st.integers(0, HEADER_BYTES - 1), st.integers(0, 255))
)
def test_any_bytes_are_a_frame_or_a_protocol_error(data):
    try:
        frame = parse_picture_frame(data, max_payload=60)
    except ProtocolError:
        return
    assert frame.serialize() == data


def test_compute_time_beyond_32_bits_is_capped():
    frame = dataclasses.replace(NOISE, micros=2**40)
    assert parse_picture_frame(frame.serialize(), max_payload=10).micros == MAX_U32

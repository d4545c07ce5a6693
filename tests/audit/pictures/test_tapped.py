"""Messages that are not a picture's are refused, each with its error."""

from __future__ import annotations

import pytest

from audit.pictures import read_messages
from audit.pictures.sessions import deep_sessions, whole_sessions
from audit.pictures.tapped import watch
from lambda_split.errors import (
    FrameLengthMismatch,
    FrameTruncated,
    FrameUnknownKind,
    MessageMalformed,
    PositionGap,
    UsageError,
)
from lambda_split.wire.frames import HEADER_BYTES
from tests.audit.pictures.some_model import form_of, pictures_of


@pytest.fixture(scope="module")
def whole(sdxl):
    return whole_sessions(sdxl, pictures_of(sdxl, "fp16")[:1], form_of("fp16"))[0]


@pytest.fixture(scope="module")
def deep(sdxl):
    return deep_sessions(sdxl, pictures_of(sdxl, "fp16")[:1], form_of("fp16"))[0]


def with_length(message: bytes, payload: bytes) -> bytes:
    """The frame with another payload, and its length."""
    head = bytearray(message[:HEADER_BYTES])
    head[HEADER_BYTES - 4 :] = len(payload).to_bytes(4, "little")
    return bytes(head) + payload


def test_two_pictures_of_a_connection_are_told_apart(sdxl, whole) -> None:
    def later(messages):
        frames = [bytearray(one) for one in messages]
        for frame in frames:
            sequence = int.from_bytes(frame[16:20], "little") + len(whole.up)
            frame[16:20] = sequence.to_bytes(4, "little")
        return [bytes(frame) for frame in frames]

    up, down = [*whole.up, *later(whole.up)], [*whole.down, *later(whole.down)]
    first, second = read_messages(up, down, sdxl.geometry)
    assert first.answers == second.answers
    assert len(first.answers) == 4


@pytest.mark.parametrize(
    ("up", "down", "error"),
    [
        (lambda s: [s.up[0][:20]], lambda _: [], FrameTruncated),
        (lambda s: s.up[1:], lambda _: [], MessageMalformed),
        (lambda s: s.up, lambda s: [s.up[1]], MessageMalformed),
        (lambda s: s.up[:1], lambda s: s.down, MessageMalformed),
        (lambda s: [s.up[0][:1] + b"\x63" + s.up[0][2:]], lambda _: [], FrameUnknownKind),
        (
            lambda s: [with_length(s.up[0], s.up[0][HEADER_BYTES:-2])],
            lambda _: [],
            FrameLengthMismatch,
        ),
    ],
)
def test_what_is_no_picture_is_refused(sdxl, whole, up, down, error) -> None:
    with pytest.raises(error):
        read_messages(up(whole), down(whole), sdxl.geometry)


def test_features_of_another_length_are_refused(sdxl, deep) -> None:
    short = with_length(deep.up[1], deep.up[1][HEADER_BYTES:-2])
    with pytest.raises(FrameLengthMismatch):
        read_messages([deep.up[0], short], [], sdxl.geometry)


def test_settings_of_another_denoiser_are_refused(sd1, whole) -> None:
    with pytest.raises(MessageMalformed, match="time ids"):
        read_messages(whole.up, whole.down, sd1.geometry)


def test_answers_that_are_missing_or_cut_are_told(sdxl, whole, deep) -> None:
    (picture,) = read_messages(whole.up, whole.down[:3], sdxl.geometry)
    with pytest.raises(PositionGap):
        watch(picture, 3)
    picture.answers[1] = picture.answers[1][:-2]
    with pytest.raises(FrameLengthMismatch):
        watch(picture, 2)
    (other,) = read_messages(deep.up, deep.down, sdxl.geometry)
    with pytest.raises(MessageMalformed, match="whole"):
        watch(other, 1)


def test_differences_are_not_for_the_deep_split(sdxl) -> None:
    with pytest.raises(UsageError, match="nf4-delta"):
        deep_sessions(sdxl, pictures_of(sdxl, "fp16"), form_of("nf4-delta"))

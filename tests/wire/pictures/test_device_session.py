"""The device's side of a session of pictures: what it sends, and which answers it takes."""

import msgspec
import pytest

from lambda_split.errors import (
    CapacityRefused,
    FrameLengthMismatch,
    FrameOversized,
    FrameUnknownCodec,
    FrameUnknownKind,
    MessageMalformed,
    NonFinite,
    PictureImpossible,
    RemoteError,
    SequenceBroken,
    ServerDraining,
    UnexpectedMessage,
)
from lambda_split.wire.messages import ErrorMessage, serialize_message
from lambda_split.wire.pictures.device_session import PictureDeviceSession
from lambda_split.wire.pictures.frames import PictureFrameKind
from lambda_split.wire.session import State
from tests.wire.pictures.examples import (
    CONDITIONING,
    FP16,
    HELLO,
    WELCOME,
    WHOLE,
    begun,
    opened,
    step,
)


def test_a_device_asks_for_nothing_before_the_welcome():
    device = PictureDeviceSession(HELLO)
    with pytest.raises(UnexpectedMessage):
        device.step(0, b"", tensors=0, answer_bytes=0)
    with pytest.raises(UnexpectedMessage) as caught:
        device.picture(WHOLE, CONDITIONING, FP16, tensors=2)
    assert caught.value.wire_fields() == {"what": "a picture", "state": "connecting"}
    assert device.in_flight == 0


@pytest.mark.parametrize(
    "changes",
    [{"codec": "fp16"}, {"codec": "nf9"}, {"max_positions": 2}],
    ids=["not-offered", "unknown", "fewer-steps"],
)
def test_a_welcome_that_breaks_the_handshake_is_malformed(changes):
    device = PictureDeviceSession(HELLO)
    with pytest.raises(MessageMalformed):
        device.receive_text(serialize_message(msgspec.structs.replace(WELCOME, **changes)))
    assert device.state is State.CONNECTING


def test_a_device_takes_one_welcome_and_no_hello():
    device, _ = opened()
    for message in (WELCOME, HELLO):
        with pytest.raises(UnexpectedMessage):
            device.receive_text(serialize_message(message))


def test_a_device_takes_no_frame_that_it_did_not_ask_for():
    device, _ = opened()
    for each in (device, PictureDeviceSession(HELLO)):
        with pytest.raises(UnexpectedMessage):
            each.receive_binary(step(kind=PictureFrameKind.NOISE))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"kind": PictureFrameKind.STEP}, FrameUnknownKind),
        ({"kind": PictureFrameKind.PICTURE}, FrameUnknownKind),
        ({"format": FP16}, FrameUnknownCodec),
        ({"sequence": 2}, SequenceBroken),
        ({"step": 0}, UnexpectedMessage),
        ({"tensors": 0}, UnexpectedMessage),
        ({"tensors": 2}, UnexpectedMessage),
        ({"payload": bytes(7)}, FrameLengthMismatch),
        ({"payload": bytes(9)}, FrameOversized),
        ({"settings_bytes": 1}, FrameLengthMismatch),
    ],
)
def test_an_answer_must_be_the_one_expected(changes, error):
    device, _ = begun()
    device.step(1, b"", tensors=0, answer_bytes=8)
    answer = {"kind": PictureFrameKind.NOISE, "step": 1, "tensors": 1, "payload": bytes(8)}
    with pytest.raises(error):
        device.receive_binary(step(**(answer | changes)))
    assert device.in_flight == 1
    assert device.receive_binary(step(**answer)).step == 1


def test_a_picture_begins_with_an_empty_answer():
    device, _ = opened()
    device.picture(WHOLE, CONDITIONING, FP16, tensors=2)
    answer = {"kind": PictureFrameKind.NOISE, "format": FP16, "sequence": 0}
    with pytest.raises(FrameOversized):
        device.receive_binary(step(**answer, payload=b"x"))
    assert device.receive_binary(step(**answer)).tensors == 0


def test_a_rejection_without_a_step_breaks_the_sequence():
    device, _ = opened()
    with pytest.raises(SequenceBroken):
        device.receive_text(serialize_message(ErrorMessage.from_error(NonFinite("incoming"), 0)))
    assert device.state is State.CLOSED


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (ErrorMessage.from_error(ServerDraining()), ServerDraining),
        (ErrorMessage.from_error(CapacityRefused("full", 3)), CapacityRefused),
        (ErrorMessage.from_error(PictureImpossible("x")), PictureImpossible),
        (ErrorMessage(code="from-the-future", message="?", sequence=0), RemoteError),
    ],
)
def test_an_error_that_answers_nothing_ends_the_session(message, error):
    device, _ = opened()
    device.picture(WHOLE, CONDITIONING, FP16, tensors=2)
    with pytest.raises(error):
        device.receive_text(serialize_message(message))
    assert device.state is State.CLOSED

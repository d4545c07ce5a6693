"""The server's side of a session of pictures: what it takes, and what it does not."""

import msgspec
import pytest

from lambda_split.errors import (
    FrameLengthMismatch,
    FrameTruncated,
    FrameUnknownCodec,
    FrameUnknownKind,
    MessageMalformed,
    PositionBeyondEnd,
    PositionGap,
    SequenceBroken,
    UnexpectedMessage,
)
from lambda_split.wire.frames import MAX_U32
from lambda_split.wire.messages import Bye, ErrorMessage, Hello, serialize_message
from lambda_split.wire.pictures.frames import PictureFrameKind
from lambda_split.wire.pictures.server_session import PictureServerSession, PictureStart
from lambda_split.wire.pictures.settings import serialize_settings
from lambda_split.wire.session import State
from lambda_split.wire.tensor_format import Base, TensorFormat, payload_bytes
from tests.wire.pictures.examples import (
    CONDITIONING,
    DEEP,
    ENTERING,
    FP16,
    FP32,
    GEOMETRY,
    HELLO,
    LATENT_BYTES,
    NF4_CHANNEL,
    WELCOME,
    WHOLE,
    begun,
    opened,
    picture,
    step,
)


@pytest.mark.parametrize("make", [picture, step, lambda: b"", lambda: b"x" * 100])
def test_a_server_takes_no_frame_before_the_hello(make):
    with pytest.raises(UnexpectedMessage) as caught:
        PictureServerSession(GEOMETRY).receive_binary(make())
    assert caught.value.state == "await-hello"


@pytest.mark.parametrize(
    "message", [WELCOME, ErrorMessage(code="x", message="y")], ids=["welcome", "error"]
)
@pytest.mark.parametrize("is_open", [False, True])
def test_a_server_takes_only_what_devices_say(message, is_open):
    server = opened()[1] if is_open else PictureServerSession(GEOMETRY)
    with pytest.raises(UnexpectedMessage) as caught:
        server.receive_text(serialize_message(message))
    assert caught.value.state == ("open" if is_open else "await-hello")


def test_a_server_takes_one_hello():
    _, server = opened()
    with pytest.raises(UnexpectedMessage) as caught:
        server.receive_text(serialize_message(HELLO))
    assert caught.value.what == "picture-hello"


def test_a_hello_of_text_is_handed_on_to_be_refused():
    hello = Hello(
        protocol=1,
        fingerprint="00112233",
        head_layers=1,
        tail_layers=1,
        hidden_size=2,
        codecs=("fp32",),
        max_positions=20,
    )
    assert PictureServerSession(GEOMETRY).receive_text(serialize_message(hello)) == hello


@pytest.mark.parametrize("is_open", [False, True])
def test_a_device_may_say_bye_at_any_time(is_open):
    server = opened()[1] if is_open else PictureServerSession(GEOMETRY)
    assert server.receive_text('{"type":"bye","reason":"r"}') == Bye(reason="r")
    assert server.state is State.CLOSED
    with pytest.raises(UnexpectedMessage):
        server.receive_binary(picture())


HEAD = len(serialize_settings(WHOLE))
BROKEN_PICTURES = {
    "truncated": (picture()[:27], FrameTruncated, {"length": 27, "needed": 28}),
    "noise": (picture(kind=PictureFrameKind.NOISE), FrameUnknownKind, {"kind": 5}),
    "sequence": (picture(sequence=1), SequenceBroken, {"found": 1, "expected": 0}),
    "coded conditioning": (
        picture(format=NF4_CHANNEL),
        FrameUnknownCodec,
        {"codec": NF4_CHANNEL.code},
    ),
    "difference": (
        picture(format=TensorFormat(Base.FP16, delta=True)),
        FrameUnknownCodec,
        {"codec": 0x82},
    ),
    "a later step": (
        picture(step=1),
        MessageMalformed,
        {"reason": "a picture begins at step 1, not 0"},
    ),
    "no settings": (picture(settings_bytes=0), MessageMalformed, None),
    "settings cut": (picture(settings_bytes=HEAD - 1), MessageMalformed, None),
    "other split": (picture(DEEP), MessageMalformed, None),
    "one tensor": (
        picture(tensors=1),
        MessageMalformed,
        {"reason": "1 tensors of conditioning, not 2"},
    ),
    "absurd tensors": (picture(tensors=MAX_U32), MessageMalformed, None),
    "time ids": (picture(msgspec.structs.replace(WHOLE, time_ids=())), MessageMalformed, None),
    "short": (
        picture(conditioning=CONDITIONING[:-1]),
        FrameLengthMismatch,
        {"length": 55, "expected": 56},
    ),
    "long": (
        picture(conditioning=CONDITIONING + b"\0"),
        FrameLengthMismatch,
        {"length": 57, "expected": 56},
    ),
    "fp32's length": (picture(format=FP32), FrameLengthMismatch, {"length": 56, "expected": 112}),
}


@pytest.mark.parametrize("name", BROKEN_PICTURES)
def test_a_picture_that_breaks_the_protocol_ends_the_session(name):
    data, error, fields = BROKEN_PICTURES[name]
    _, server = opened()
    with pytest.raises(error) as caught:
        server.receive_binary(data)
    assert type(caught.value) is error
    assert fields is None or caught.value.wire_fields() == fields


def test_a_picture_of_the_whole_split_is_none_of_the_deep_one():
    _, server = opened("deep", FP32)
    with pytest.raises(MessageMalformed):
        server.receive_binary(picture(WHOLE))


def test_a_step_before_any_picture_is_a_gap():
    _, server = opened()
    with pytest.raises(PositionGap) as caught:
        server.receive_binary(step(sequence=0, step=2))
    assert caught.value.wire_fields() == {"start": 2, "length": 0}
    assert isinstance(server.receive_binary(picture(sequence=1)), PictureStart)


@pytest.mark.parametrize("number", [3, MAX_U32])
def test_a_step_beyond_the_last_is_rejected_and_the_session_goes_on(number):
    _, server = begun()
    with pytest.raises(PositionBeyondEnd) as caught:
        server.receive_binary(step(step=number))
    assert caught.value.wire_fields() == {"end": number + 1, "max_positions": 3}
    assert server.receive_binary(step(sequence=2, step=2)).frame.step == 2


BROKEN_STEPS = {
    "noise": ({"kind": PictureFrameKind.NOISE}, FrameUnknownKind, {"kind": 5}),
    "format": ({"format": FP16}, FrameUnknownCodec, {"codec": 2}),
    "repeated": ({"sequence": 0}, SequenceBroken, {"found": 0, "expected": 1}),
    "lost": ({"sequence": 2}, SequenceBroken, {"found": 2, "expected": 1}),
    "settings": (
        {"payload": b"{}", "settings_bytes": 2},
        FrameLengthMismatch,
        {"length": 2, "expected": 0},
    ),
    "payload without tensors": (
        {"payload": b"x"},
        FrameLengthMismatch,
        {"length": 1, "expected": 0},
    ),
    "tensors without payload": (
        {"tensors": 1},
        FrameLengthMismatch,
        {"length": 0, "expected": LATENT_BYTES},
    ),
    "short": (
        {"tensors": 2, "payload": bytes(2 * LATENT_BYTES - 1)},
        FrameLengthMismatch,
        {"length": 2 * LATENT_BYTES - 1, "expected": 2 * LATENT_BYTES},
    ),
    "too many": (
        {"tensors": 4, "payload": bytes(4 * LATENT_BYTES)},
        MessageMalformed,
        {"reason": "4 tensors in a step"},
    ),
    "absurdly many": ({"tensors": MAX_U32}, MessageMalformed, None),
}


@pytest.mark.parametrize("name", BROKEN_STEPS)
def test_a_step_that_breaks_the_protocol_ends_the_session(name):
    changes, error, fields = BROKEN_STEPS[name]
    _, server = begun()
    with pytest.raises(error) as caught:
        server.receive_binary(step(**changes))
    assert type(caught.value) is error
    assert fields is None or caught.value.wire_fields() == fields


INNER_BYTES = payload_bytes(NF4_CHANNEL, ENTERING)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"tensors": 0, "payload": b""}, MessageMalformed),
        ({"tensors": 2, "payload": bytes(2 * INNER_BYTES)}, MessageMalformed),
        ({"payload": bytes(INNER_BYTES - 1)}, FrameLengthMismatch),
        ({"payload": bytes(INNER_BYTES + 1)}, FrameLengthMismatch),
        ({"format": FP32}, FrameUnknownCodec),
        ({"step": 3}, PositionBeyondEnd),
    ],
)
def test_a_step_of_the_deep_split_has_one_tensor(changes, error):
    _, server = begun(DEEP, "deep", NF4_CHANNEL)
    facts = {"format": NF4_CHANNEL, "tensors": 1, "payload": bytes(INNER_BYTES)}
    with pytest.raises(error):
        server.receive_binary(step(**(facts | changes)))

"""The state machines of both sides for pictures, without sockets."""

import dataclasses

import msgspec
import pytest

from lambda_split.errors import (
    CapacityRefused,
    FrameLengthMismatch,
    FrameOversized,
    FrameTruncated,
    FrameUnknownCodec,
    FrameUnknownKind,
    MessageMalformed,
    NonFinite,
    PictureImpossible,
    PositionBeyondEnd,
    PositionGap,
    RemoteError,
    SequenceBroken,
    ServerDraining,
    StateMismatch,
    UnexpectedMessage,
)
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.frames import HEADER_BYTES, MAX_U32
from lambda_split.wire.in_flight import Rejected
from lambda_split.wire.messages import (
    MAX_MESSAGE_BYTES,
    Bye,
    ErrorMessage,
    Hello,
    PictureHello,
    Welcome,
    serialize_message,
)
from lambda_split.wire.pictures.device_session import PictureDeviceSession
from lambda_split.wire.pictures.frames import PictureFrame, PictureFrameKind
from lambda_split.wire.pictures.handshake import AcceptedPictures
from lambda_split.wire.pictures.layout import inner_shapes
from lambda_split.wire.pictures.server_session import (
    MAX_STATE_TENSORS,
    PictureServerSession,
    PictureStart,
    PictureStep,
    longest_payload,
)
from lambda_split.wire.pictures.settings import MAX_ROW_TOKENS, serialize_settings
from lambda_split.wire.session import State
from lambda_split.wire.tensor_format import (
    TENSOR_FORMATS,
    Base,
    TensorFormat,
    payload_bytes,
)
from tests.wire.pictures.examples import (
    CONDITIONING_VALUES,
    DEEP,
    FP16,
    FP32,
    GEOMETRY,
    LATENT_BYTES,
    NF4_CHANNEL,
    NF4_DELTA,
    WHOLE,
    opened,
)

HELLO = PictureHello(
    protocol=1,
    fingerprint="00112233",
    split="whole",
    formats=("fp32",),
    latents=15,
    context=8,
    steps=3,
)
WELCOME = Welcome(session="s", codec="fp32", max_positions=3, max_chunk_tokens=1)
CONDITIONING = bytes(2 * CONDITIONING_VALUES)  # in fp16
ENTERING, LEAVING = inner_shapes(DEEP, GEOMETRY.deep)


def picture(settings=WHOLE, conditioning=CONDITIONING, **changes):
    head = serialize_settings(settings)
    facts = {
        "kind": PictureFrameKind.PICTURE,
        "format": FP16,
        "step": 0,
        "tensors": 2,
        "sequence": 0,
        "payload": head + conditioning,
        "settings_bytes": len(head),
    }
    return PictureFrame(**(facts | changes)).serialize()


def step(**changes):
    facts = {
        "kind": PictureFrameKind.STEP,
        "format": FP32,
        "step": 0,
        "tensors": 0,
        "sequence": 1,
        "payload": b"",
    }
    return PictureFrame(**(facts | changes)).serialize()


def begun(settings=WHOLE, split="whole", form=FP32):
    """Both sides with a picture that has begun."""
    device, server = opened(split, form)
    asked = server.receive_binary(device.picture(settings, CONDITIONING, FP16, tensors=2))
    device.receive_binary(server.reply(asked, Encoded(b""), 0))
    return device, server


# --- both sides together ------------------------------------------------------------------------


@pytest.mark.parametrize("form", [FP32, NF4_DELTA, NF4_CHANNEL], ids=lambda form: form.label)
def test_a_whole_picture_crosses(form):
    device, server = opened(form=form)
    size = payload_bytes(form, (1, 2, 3, 5))
    texts = [device.picture(WHOLE, b"\1" * len(CONDITIONING), FP16, tensors=2)]
    texts += [device.step(number, b"", tensors=0, answer_bytes=size) for number in range(3)]
    assert device.in_flight == 4
    start, *steps = [server.receive_binary(text) for text in texts]
    assert isinstance(start, PictureStart)
    assert start.settings == WHOLE
    assert bytes(start.conditioning) == b"\1" * len(CONDITIONING)
    assert all(isinstance(each, PictureStep) for each in steps)
    assert all(each.settings is start.settings for each in steps)
    answer = device.receive_binary(server.reply(start, Encoded(b""), 9))
    assert (answer.format, answer.tensors, len(answer.payload)) == (FP16, 0, 0)
    for number, asked in enumerate(steps):
        noise = Encoded(bytes([number]) * size)
        answer = device.receive_binary(server.reply(asked, noise, 55))
        assert (answer.step, answer.tensors, answer.micros) == (number, 1, 55)
        assert answer.payload == noise.payload
    assert device.in_flight == 0


@pytest.mark.parametrize("form", [FP32, NF4_CHANNEL], ids=lambda form: form.label)
def test_a_deep_picture_crosses(form):
    device, server = begun(DEEP, "deep", form)
    entering, leaving = payload_bytes(form, ENTERING), payload_bytes(form, LEAVING)
    for number in range(3):
        features = bytes([number]) * entering
        asked = server.receive_binary(
            device.step(number, features, tensors=1, answer_bytes=leaving)
        )
        assert asked.frame.payload == features
        answer = device.receive_binary(server.reply(asked, Encoded(bytes(leaving)), 1))
        assert (answer.step, len(answer.payload)) == (number, leaving)


def test_a_session_makes_one_picture_after_another():
    device, server = begun()
    device.receive_binary(
        server.reply(
            server.receive_binary(device.step(0, b"", tensors=0, answer_bytes=4)),
            Encoded(bytes(4)),
            0,
        )
    )
    other = msgspec.structs.replace(WHOLE, guidance=2.0)
    asked = server.receive_binary(device.picture(other, CONDITIONING, FP16, tensors=2))
    assert asked.settings == other
    following = server.receive_binary(device.step(0, b"", tensors=0, answer_bytes=4))
    assert following.settings is asked.settings


@pytest.mark.parametrize("tensors", range(MAX_STATE_TENSORS + 1))
def test_a_step_may_bring_its_state_in_fp32_whatever_the_format(tensors):
    device, server = begun(form=NF4_DELTA)
    state = bytes(tensors * LATENT_BYTES)
    asked = server.receive_binary(device.step(2, state, tensors=tensors, answer_bytes=0))
    assert (asked.frame.tensors, len(asked.frame.payload)) == (tensors, len(state))


@pytest.mark.parametrize("error", [PictureImpossible("x"), StateMismatch(1, 2)])
def test_a_rejected_step_is_reported_in_its_turn(error):
    device, server = begun()
    asked = [
        server.receive_binary(device.step(number, b"", tensors=0, answer_bytes=0))
        for number in range(2)
    ]
    rejected = device.receive_text(server.reject(asked[0].frame.sequence, error))
    assert isinstance(rejected, Rejected)
    assert rejected.sequence == 1
    assert type(rejected.error) is type(error)
    assert rejected.error.wire_fields() == error.wire_fields()
    assert device.in_flight == 1
    assert device.receive_binary(server.reply(asked[1], Encoded(b""), 0)).step == 1


def test_either_side_may_say_bye():
    device, server = opened()
    assert device.receive_text('{"type":"bye","reason":"x"}') == Bye(reason="x")
    assert device.state is State.CLOSED
    device, server = opened()
    assert server.receive_text(device.close("done")) == Bye(reason="done")
    assert device.state is server.state is State.CLOSED


def test_sequence_numbers_start_again_after_the_last():
    device, server = begun()
    device._in_flight._next = server._next_sequence = MAX_U32
    for expected in (MAX_U32, 0):
        asked = server.receive_binary(device.step(0, b"", tensors=0, answer_bytes=0))
        assert asked.frame.sequence == server.last_sequence == expected
        assert device.receive_binary(server.reply(asked, Encoded(b""), 0)).sequence == expected


# --- the server's side --------------------------------------------------------------------------


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


def larger(**changes):
    """A picture whose conditioning is as long as its settings say."""
    settings = msgspec.structs.replace(WHOLE, **changes)
    return settings, bytes(2 * 2 * (settings.context_tokens * 3 + 2))


BEYOND = {
    "context": (larger(context_tokens=5), {"end": 10, "max_positions": 8}),
    "height": (larger(height=4), {"end": 20, "max_positions": 15}),
    "images": (larger(images=2), {"end": 30, "max_positions": 15}),
    "absurd": (larger(images=64, height=4096, width=4096), {"end": 2**30, "max_positions": 15}),
    "steps": (
        larger(denoising=msgspec.structs.replace(WHOLE.denoising, steps=4)),
        {"end": 4, "max_positions": 3},
    ),
}


@pytest.mark.parametrize("name", BEYOND)
def test_a_picture_beyond_what_was_agreed_is_rejected_and_the_session_goes_on(name):
    (settings, conditioning), fields = BEYOND[name]
    device, server = begun()
    with pytest.raises(PositionBeyondEnd) as caught:
        server.receive_binary(device.picture(settings, conditioning, FP16, tensors=2))
    assert caught.value.wire_fields() == fields
    rejected = device.receive_text(server.reject(server.last_sequence, caught.value))
    assert rejected.error.wire_fields() == fields
    # The steps behind it are not taken for steps of the picture before.
    with pytest.raises(PositionGap) as caught:
        server.receive_binary(device.step(0, b"", tensors=0, answer_bytes=0))
    device.receive_text(server.reject(server.last_sequence, caught.value))
    asked = server.receive_binary(device.picture(WHOLE, CONDITIONING, FP16, tensors=2))
    assert isinstance(asked, PictureStart)
    assert isinstance(
        server.receive_binary(device.step(0, b"", tensors=0, answer_bytes=0)), PictureStep
    )


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


def test_a_picture_of_the_whole_split_is_none_of_the_deep_one():
    _, server = opened("deep", FP32)
    with pytest.raises(MessageMalformed):
        server.receive_binary(picture(WHOLE))


# --- bounds before allocation -------------------------------------------------------------------


def test_before_the_welcome_a_message_is_as_long_as_a_control_message():
    assert PictureServerSession(GEOMETRY).longest_message == MAX_MESSAGE_BYTES


@pytest.mark.parametrize("split", ["whole", "deep"])
def test_a_message_is_bounded_by_what_was_agreed(split):
    _, server = opened(split)
    state = 3 * 2 * 15  # three tensors of two channels
    inner = 2 * 4 * (15 + 2 * 15)  # two rows of four channels, with as many groups as latents
    limit = MAX_MESSAGE_BYTES + 4 * max(state, inner, 8 * 5)
    assert server.longest_message == HEADER_BYTES + limit
    header = bytearray(picture()[:HEADER_BYTES])
    header[24:28] = (limit + 1).to_bytes(4, "little")
    with pytest.raises(FrameOversized) as caught:
        server.receive_binary(bytes(header))
    assert caught.value.wire_fields() == {"length": limit + 1, "limit": limit}


def test_the_longest_payload_is_the_longest_of_three():
    accepted = AcceptedPictures("whole", FP32, max_latents=1, max_context=1, max_steps=1)
    shallow = dataclasses.replace(GEOMETRY, deep=None)
    assert longest_payload(accepted, shallow) == MAX_MESSAGE_BYTES + 4 * 6
    assert longest_payload(accepted, GEOMETRY) == MAX_MESSAGE_BYTES + 4 * 8 * 3
    told = dataclasses.replace(accepted, max_context=100)
    assert longest_payload(told, GEOMETRY) == MAX_MESSAGE_BYTES + 4 * 100 * (3 + 2)


@pytest.mark.parametrize("form", TENSOR_FORMATS, ids=lambda form: form.label)
@pytest.mark.parametrize("images", [1, 4, 64])
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 5)], ids=str
)
def test_all_that_is_legal_is_short_enough(form, images, height, width):
    # Wide enough that what is allowed for settings does not hide what is missing.
    wide = dataclasses.replace(GEOMETRY.deep, input_channels=320)
    geometry = dataclasses.replace(GEOMETRY, deep=wide)
    settings = msgspec.structs.replace(DEEP, images=images, height=height, width=width)
    latents = images * height * width
    accepted = AcceptedPictures("deep", form, latents, max_context=8, max_steps=3)
    limit = longest_payload(accepted, geometry) - MAX_MESSAGE_BYTES
    entering, _ = inner_shapes(settings, wide)
    assert payload_bytes(form, entering) <= limit
    assert MAX_STATE_TENSORS * 4 * 2 * latents <= limit
    assert limit >= 4 * CONDITIONING_VALUES


# --- the device's side --------------------------------------------------------------------------


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


@pytest.mark.parametrize(("images", "is_taken"), [(8, True), (9, False)])
def test_many_images_times_long_conditioning_are_bounded(images, is_taken):
    # Sent once and repeated for each image: few bytes that would become many in the denoiser.
    server = PictureServerSession(GEOMETRY)
    accepted = AcceptedPictures(
        split="whole", format=FP32, max_latents=10_000, max_context=2048, max_steps=3
    )
    server.accept(WELCOME, accepted)
    settings, conditioning = larger(images=images, context_tokens=MAX_ROW_TOKENS // 16)
    assert settings.branches == 2
    message = picture(settings, conditioning)
    if is_taken:
        assert isinstance(server.receive_binary(message), PictureStart)
        return
    with pytest.raises(PositionBeyondEnd) as caught:
        server.receive_binary(message)
    assert caught.value.max_positions == MAX_ROW_TOKENS

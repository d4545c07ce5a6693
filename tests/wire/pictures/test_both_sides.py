"""A device's and a server's session with each other, without sockets."""

import msgspec
import pytest

from lambda_split.errors import PictureImpossible, StateMismatch
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.frames import MAX_U32
from lambda_split.wire.in_flight import Rejected
from lambda_split.wire.messages import Bye
from lambda_split.wire.pictures.server_session import MAX_STATE_TENSORS, PictureStart, PictureStep
from lambda_split.wire.session import State
from lambda_split.wire.tensor_format import payload_bytes
from tests.wire.pictures.examples import (
    CONDITIONING,
    DEEP,
    ENTERING,
    FP16,
    FP32,
    LATENT_BYTES,
    LEAVING,
    NF4_CHANNEL,
    NF4_DELTA,
    WHOLE,
    begun,
    opened,
)


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

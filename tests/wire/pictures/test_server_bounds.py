"""How large what a server takes may be: pictures as agreed, and messages before they are read."""

import dataclasses

import msgspec
import pytest

from lambda_split.errors import FrameOversized, PositionBeyondEnd, PositionGap
from lambda_split.wire.frames import HEADER_BYTES
from lambda_split.wire.messages import MAX_MESSAGE_BYTES
from lambda_split.wire.pictures.handshake import AcceptedPictures
from lambda_split.wire.pictures.layout import inner_shapes
from lambda_split.wire.pictures.server_session import (
    MAX_STATE_TENSORS,
    PictureServerSession,
    PictureStart,
    PictureStep,
    longest_payload,
)
from lambda_split.wire.pictures.settings import MAX_ROW_TOKENS
from lambda_split.wire.tensor_format import TENSOR_FORMATS, payload_bytes
from tests.wire.pictures.examples import (
    CONDITIONING,
    CONDITIONING_VALUES,
    DEEP,
    FP16,
    FP32,
    GEOMETRY,
    WELCOME,
    WHOLE,
    begun,
    opened,
    picture,
)


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

"""A picture's settings: literal texts, bounds, and whether they fit a denoiser."""

import msgspec
import pytest

from lambda_split.diffusion.scheduler_config import SchedulerConfig
from lambda_split.errors import MessageMalformed
from lambda_split.wire.messages import MAX_MESSAGE_BYTES
from lambda_split.wire.pictures.layout import (
    DeepGeometry,
    DenoiserGeometry,
    conditioning_shapes,
    inner_shapes,
    state_shape,
)
from lambda_split.wire.pictures.settings import (
    Denoising,
    PictureSettings,
    parse_settings,
    serialize_settings,
)
from tests.wire.pictures.examples import DEEP, GEOMETRY, WHOLE

LITERALS = {
    "whole": (
        WHOLE,
        (
            '{"images":1,"height":3,"width":5,"context_tokens":4,"prompts":1,"negative":"sent",'
            '"guidance":5.0,"rescale":0.0,"guidance_embedding":null,"time_ids":[24.0,40.0],'
            '"denoising":{"scheduler":{"_class_name":"EulerDiscreteScheduler"},"steps":3,"seed":7,'
            '"first_image":0,"synchronized":true},"timesteps":[]}'
        ),
    ),
    "deep": (
        DEEP,
        (
            '{"images":1,"height":3,"width":5,"context_tokens":4,"prompts":1,"negative":"sent",'
            '"guidance":1.0,"rescale":0.0,"guidance_embedding":null,"time_ids":[24.0,40.0],'
            '"denoising":null,"timesteps":[999.0,499.0,1.0]}'
        ),
    ),
}


@pytest.mark.parametrize("name", LITERALS)
def test_settings_are_this_text(name):
    settings, text = LITERALS[name]
    assert serialize_settings(settings) == text.encode()


@pytest.mark.parametrize("name", LITERALS)
def test_this_text_is_the_settings(name):
    settings, text = LITERALS[name]
    assert parse_settings(memoryview(text.encode())) == settings
    assert settings.steps == 3
    assert settings.branches == 2


def test_what_is_not_named_has_its_default():
    text = b'{"images":2,"height":1,"width":4096,"context_tokens":77,"from_the_future":1}'
    settings = parse_settings(text)
    assert settings == PictureSettings(images=2, height=1, width=4096, context_tokens=77)
    assert settings.branches == 1
    assert settings.steps == 0


SMALLEST = {"images": 1, "height": 1, "width": 1, "context_tokens": 1}
DENOISING = {"scheduler": {"_class_name": "DDIMScheduler"}, "steps": 1, "seed": 0}
# Of each field the least and the greatest value, and one beyond each.
BOUNDS = {
    "images": (1, 64, 0, 65),
    "prompts": (1, 64, 0, 65),
    "height": (1, 4096, 0, 4097),
    "width": (1, 4096, 0, 4097),
    "context_tokens": (1, 4096, 0, 4097),
    "guidance": (0, 1000, -0.1, 1000.1),
    "guidance_embedding": (0, 1000, -0.1, 1000.1),
    "rescale": (0, 1, -0.1, 1.1),
    "time_ids": ([-100_000.0], [100_000.0], [-100_001], [100_001]),
    "timesteps": ([0.0], [100_000.0], [-0.1], [100_001]),
}
DENOISING_BOUNDS = {
    "steps": (1, 1000, 0, 1001),
    "seed": (0, 2**53 - 1, -1, 2**53),
    "first_image": (0, 2**24, -1, 2**24 + 1),
}


def parsed(changes, denoising=None):
    facts = SMALLEST | changes
    if denoising is not None:
        facts["denoising"] = DENOISING | denoising
    return parse_settings(msgspec.json.encode(facts))


@pytest.mark.parametrize("name", BOUNDS)
def test_fields_have_bounds(name):
    least, greatest, below, above = BOUNDS[name]
    for value in (least, greatest):
        read = getattr(parsed({name: value}), name)
        assert (list(read) if isinstance(value, list) else read) == value
    for value in (below, above, "1"):
        with pytest.raises(MessageMalformed):
            parsed({name: value})


@pytest.mark.parametrize("name", DENOISING_BOUNDS)
def test_fields_of_denoising_have_bounds(name):
    least, greatest, below, above = DENOISING_BOUNDS[name]
    for value in (least, greatest):
        assert getattr(parsed({}, {name: value}).denoising, name) == value
    for value in (below, above, "1"):
        with pytest.raises(MessageMalformed):
            parsed({}, {name: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"negative": "both"},
        {"time_ids": [0] * 17},
        {"timesteps": [1] * 1001},
        {"images": 1.5},
        {"images": True},
        {"denoising": {}},
        {"denoising": DENOISING | {"scheduler": {}}},
        {"denoising": DENOISING | {"scheduler": {"_class_name": "x" * 65}}},
        {"denoising": DENOISING | {"synchronized": 1}},
    ],
)
def test_settings_out_of_bounds_are_malformed(changes):
    with pytest.raises(MessageMalformed):
        parsed(changes)


@pytest.mark.parametrize("name", SMALLEST)
def test_measures_must_be_there(name):
    with pytest.raises(MessageMalformed):
        parse_settings(msgspec.json.encode({k: v for k, v in SMALLEST.items() if k != name}))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"images":1e400}', b"NaN"])
def test_what_is_no_json_object_is_malformed(data):
    with pytest.raises(MessageMalformed):
        parse_settings(data)


def test_settings_are_as_long_as_a_control_message_may_be():
    text = serialize_settings(WHOLE)
    padding = MAX_MESSAGE_BYTES - len(text)
    assert parse_settings(text + b" " * padding) == WHOLE
    with pytest.raises(MessageMalformed):
        parse_settings(text + b" " * (padding + 1))


@pytest.mark.parametrize(("settings", "deep"), [(WHOLE, False), (DEEP, True)])
def test_settings_are_of_one_split(settings, deep):
    GEOMETRY.check(settings, deep=deep)
    with pytest.raises(MessageMalformed):
        GEOMETRY.check(settings, deep=not deep)


DISTILLED = DenoiserGeometry(channels=2, context_width=3, guidance_embedding=True)


@pytest.mark.parametrize(
    ("settings", "geometry", "deep"),
    [
        (msgspec.structs.replace(WHOLE, timesteps=(1.0,)), GEOMETRY, False),
        (msgspec.structs.replace(DEEP, denoising=WHOLE.denoising), GEOMETRY, True),
        (msgspec.structs.replace(DEEP, timesteps=()), GEOMETRY, True),
        (msgspec.structs.replace(WHOLE, time_ids=()), GEOMETRY, False),
        (msgspec.structs.replace(WHOLE, time_ids=(1.0, 2.0, 3.0)), GEOMETRY, False),
        (msgspec.structs.replace(WHOLE, guidance_embedding=7.0), GEOMETRY, False),
        (msgspec.structs.replace(WHOLE, time_ids=()), DISTILLED, False),
        (msgspec.structs.replace(WHOLE, images=4, prompts=2), GEOMETRY, False),
        (msgspec.structs.replace(WHOLE, images=1, prompts=2), GEOMETRY, False),
    ],
)
def test_settings_must_fit_the_denoiser(settings, geometry, deep):
    with pytest.raises(MessageMalformed):
        geometry.check(settings, deep=deep)


@pytest.mark.parametrize("prompts", [1, 4])
def test_there_is_one_prompt_for_all_images_or_one_each(prompts):
    GEOMETRY.check(msgspec.structs.replace(WHOLE, images=4, prompts=prompts), deep=False)
    settings = PictureSettings(
        images=1,
        height=1,
        width=1,
        context_tokens=1,
        guidance_embedding=7.0,
        denoising=Denoising(scheduler=SchedulerConfig(class_name="x"), steps=1, seed=0),
    )
    DISTILLED.check(settings, deep=False)


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({"negative": "none"}, 1),
        ({"negative": "zeros"}, 1),
        ({"negative": "sent"}, 2),
        ({"negative": "zeros", "images": 3, "prompts": 3}, 3),
        ({"negative": "sent", "images": 3, "prompts": 3}, 6),
        ({"negative": "sent", "images": 3}, 2),
    ],
)
def test_conditioning_has_a_row_for_each_prompt_that_is_sent(changes, rows):
    settings = msgspec.structs.replace(WHOLE, **changes)
    assert conditioning_shapes(settings, GEOMETRY) == [(rows, 4, 3), (rows, 2)]
    assert conditioning_shapes(settings, DISTILLED) == [(rows, 4, 3)]


def test_shapes_at_the_cuts_are_rounded_up():
    settings = msgspec.structs.replace(DEEP, images=2)
    assert state_shape(settings, GEOMETRY) == (2, 2, 3, 5)
    deep = DeepGeometry(input_channels=4, output_channels=6, reduction=2)
    assert inner_shapes(settings, deep) == ((4, 4, 2, 3), (4, 6, 2, 3))
    unguided = msgspec.structs.replace(settings, negative="none", height=4)
    assert inner_shapes(unguided, deep) == ((2, 4, 2, 3), (2, 6, 2, 3))

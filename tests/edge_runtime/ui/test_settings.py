"""What the fields of the page may hold: a browser can send anything for them."""

from __future__ import annotations

import pytest

from edge_runtime.sampling import SamplingSettings
from edge_runtime.ui.chat_settings import read_chat_settings
from edge_runtime.ui.chatting import AnswerSettings
from edge_runtime.ui.fields import read_number, read_text, read_whole
from edge_runtime.ui.picture_settings import read_picture_settings
from lambda_split.errors import UsageError
from lambda_split.image_bundle import ImageManifest, load_image_bundle
from tests.test_image_bundle import folder  # noqa: F401  # a fixture, which pytest finds by name

DEFAULTS = SamplingSettings(temperature=0.7, top_k=40, top_p=0.9)
EMPTY = (None, None, None, None, None, None, None, None, None)


def test_empty_fields_mean_the_bundle_s_own() -> None:
    assert read_chat_settings(EMPTY, DEFAULTS) == AnswerSettings(None, 256, DEFAULTS)


def test_all_fields() -> None:
    values = (" Be brief. ", 0, 7.0, " 3 ", 0.5, 2, 0.1, 1.2, "END\n\n###\n")
    assert read_chat_settings(values, DEFAULTS) == AnswerSettings(
        "Be brief.",
        7,
        SamplingSettings(0, 2, 0.5, 0.1, 1.2, 3),
        ("END", "###"),
    )


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        (1, -1, "temperature"),
        (1, "hot", "temperature must be a number"),
        (1, float("nan"), "temperature"),
        (2, 0, "from 1 to 4,096"),
        (2, 1e9, "from 1 to 4,096"),
        (2, 1.5, "most new tokens must be a whole number"),
        (2, float("inf"), "most new tokens must be a whole number"),
        (3, "-1", "seed"),
        (3, "1.5", "seed"),
        (3, "9" * 21, "seed"),
        (4, 2, "top_p"),
        (5, -1, "top_k"),
        (6, True, "min p must be a number"),
        (7, 0, "repetition_penalty"),
    ],
)
def test_values_that_make_no_sense(place, value, complaint) -> None:
    values = [*EMPTY]
    values[place] = value
    with pytest.raises(UsageError, match=complaint):
        read_chat_settings(values, DEFAULTS)


def test_fields() -> None:
    assert read_number("", "x", 3.0) == 3.0
    assert read_whole(4.0, "x", 0) == 4
    assert read_text(None) == read_text(5) == ""


@pytest.fixture
def manifest(folder) -> ImageManifest:  # noqa: F811  # the fixture itself
    return load_image_bundle(folder).manifest


def test_pictures_with_empty_fields_are_the_model_s_own(manifest) -> None:
    wish = read_picture_settings("a cat", EMPTY, manifest)
    assert (wish.prompt, wish.negative_prompt, wish.preview_every) == ("a cat", "", 0)
    assert wish.spec.size(manifest) == (manifest.latents.height, manifest.latents.width)
    assert (wish.spec.steps, wish.spec.solver, wish.spec.seed) == (20, None, None)


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        (1, 0, "steps"),
        (2, -1, "guidance"),
        (3, "-1", "seed"),
        (3, "1.5", "seed"),
        (3, "9" * 21, "seed"),
        (4, 7, "width"),
        (5, 1e6, "height"),
        (6, 0, "images"),
        (7, "magic", "no solver 'magic'"),
        (8, -1, "preview every"),
        (3, "9" * 20, "seed"),
    ],
)
def test_pictures_that_cannot_be_made(place, value, complaint, manifest) -> None:
    values = [*EMPTY]
    values[place] = value
    with pytest.raises(UsageError, match=complaint):
        read_picture_settings("a cat", values, manifest)

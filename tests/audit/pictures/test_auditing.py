"""The whole audit on a tiny pipeline."""

from __future__ import annotations

import numpy as np
import pytest

from audit.pictures import audit_pictures
from audit.pictures.captions import usual_captions
from lambda_split.errors import CheckpointNotFound, UnsupportedFamily, UsageError
from tests.tiny_pipelines import save_tiny_pipeline

CAPTIONS = ("a red cat", "a small blue dog", "photo of a circle")


def test_everything_is_found_out(sdxl, pipelines) -> None:
    found = audit_pictures(
        str(pipelines / "sdxl"),
        captions=CAPTIONS,
        own_captions=("a green square", "a large triangle"),
        steps=3,
        pairs=(2, 6),
        whole_formats=("fp16", "nf4-delta"),
        deep_formats=("fp16",),
        rounds=20,
        samples=2,
    )
    assert found.captions == CAPTIONS
    assert found.prompts.recovered == found.prompts.total > 0
    assert found.control.recovered < found.control.total / 4
    assert [(one.split, one.form) for one in found.settings] == [
        ("whole", "fp16"),
        ("whole", "nf4-delta"),
        ("deep", "fp16"),
    ]
    whole, coded, deep = found.settings
    assert whole.sizes.up[1:] == (28, 28, 28)
    assert whole.sizes.down == (28, *[28 + 2 * 4 * 16 * 16] * 3)
    assert deep.sizes.up[1:] == (28 + 2 * 2 * 32 * 8 * 8,) * 3
    assert coded.bytes_down < whole.bytes_down < deep.bytes_down
    assert np.mean(whole.cost.psnr) > np.mean(coded.cost.psnr)
    last = [one for one in found.attacks if one.split == "whole" and one.step == 3]
    assert [one.likeness.psnr for one in last] == [(np.inf,) * 3] * 2
    names = [(one.name, one.step, one.pairs) for one in found.attacks if one.split == "deep"]
    assert ("a linear map", 3, 2) in names
    assert ("a linear map", 1, 6) in names
    assert ("a search with the public model", 3, 0) in names
    samples = found.samples
    assert np.array_equal(samples.shown, samples.tapped)
    for pictures in (samples.shown, samples.deep_linear, samples.deep_search):
        assert (pictures.shape, pictures.dtype) == ((2, 64, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"captions": ()}, "captions"),
        ({"captions": ("a cat",), "own_captions": ("a cat", "a dog")}, "a cat"),
        ({"steps": 0}, "steps"),
        ({"after": (9,)}, "8 steps"),
        ({"pairs": (0,)}, "pairs"),
        ({"guidance": 1.0, "captions": ("a cat",)}, "guidance"),
        ({"whole_formats": ()}, "in a format"),
        ({"whole_formats": ("fp17",)}, "'whole' has no format 'fp17'"),
        ({"deep_formats": ("nf4-delta",)}, "'deep' has no format 'nf4-delta'"),
    ],
)
def test_what_makes_no_sense_is_refused(sdxl, pipelines, settings, said) -> None:
    with pytest.raises(UsageError, match=said):
        audit_pictures(str(pipelines / "sdxl"), **settings)


def test_models_that_are_not_audited_are_refused(tmp_path) -> None:
    with pytest.raises(CheckpointNotFound):
        audit_pictures(str(tmp_path / "nothing"))
    save_tiny_pipeline("lcm", tmp_path / "lcm")
    with pytest.raises(UnsupportedFamily, match="distilled"):
        audit_pictures(str(tmp_path / "lcm"))


@pytest.mark.parametrize("model", ["demo-image", "another"])
def test_captions_to_learn_from_are_others(model) -> None:
    attacked, own = usual_captions(model)
    assert len(attacked) == 8
    assert own
    assert not set(attacked) & set(own)

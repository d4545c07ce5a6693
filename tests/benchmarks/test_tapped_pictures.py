"""What is tapped of a picture leads back to it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.picture_formats.denoising import synchronized
from benchmarks.picture_formats.measuring import Plan, ask
from benchmarks.picture_formats.painter import open_painter
from benchmarks.tapped_pictures.deep import LinearMap, channel_mean, cross, first_channels
from benchmarks.tapped_pictures.searching import search
from benchmarks.tapped_pictures.whole import record, watch
from lambda_split.wire.tensor_format import TensorFormat
from tests.tiny_pipelines import save_tiny_pipeline

PLAN = Plan(("a red cat", "a small blue dog"), (5,), steps=4)


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tapped") / "sdxl"
    save_tiny_pipeline("sdxl", folder)
    return open_painter(str(folder))


def made(painter, label: str):
    form = TensorFormat.from_label(label)
    asked = ask(painter, PLAN, form, synchronized=True)
    return form, asked, synchronized(painter.denoiser, asked, form)


@pytest.mark.parametrize("label", ["fp16", "int2", "nf4-channel-delta"])
def test_the_messages_of_the_whole_split_hold_the_picture(painter, label) -> None:
    form, asked, receivers = made(painter, label)
    for one, receiver in zip(asked, receivers, strict=True):
        recording = record(one, receiver, form)
        np.testing.assert_allclose(
            watch(recording, PLAN.steps), receiver.state.sample, rtol=1e-5, atol=1e-5
        )


def test_features_of_the_deep_split_lead_back_to_the_latents(painter) -> None:
    form, asked, receivers = made(painter, "fp16")
    step = PLAN.steps - 1
    features = cross(painter.denoiser, asked, [one.states[step] for one in receivers], step, form)
    assert features.shape == (2, 2, 32, 8, 8)
    found, off = search(painter.denoiser, asked, features, step)
    assert off < 0.3  # of random weights, which are harder to go back through than trained ones
    wanted = np.concatenate([one.state.sample for one in receivers])
    assert found.shape == wanted.shape
    likeness = np.corrcoef(found.ravel(), wanted.ravel())[0, 1]
    assert likeness > 0.7


def test_a_linear_map_finds_what_is_linear() -> None:
    random = np.random.default_rng(0)
    latents = random.normal(size=(20, 4, 8, 6)).astype(np.float32)
    # (20, 4, 4, 2, 3, 2) -> (20, 4, 2, 2, 4, 3) -> (20, 16, 4, 3): each place's four latents
    cells = latents.reshape(20, 4, 4, 2, 3, 2).transpose(0, 1, 3, 5, 2, 4).reshape(20, 16, 4, 3)
    features = np.einsum("fc,nchw->nfhw", random.normal(size=(24, 16)), cells).astype(np.float32)
    linear = LinearMap.fitted(features[:15], latents[:15])
    np.testing.assert_allclose(linear(features[15:]), latents[15:], atol=1e-3)


def test_simple_looks_have_the_shape_of_what_they_look_for() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(3, 32, 8, 8)).astype(np.float32)
    likely = random.normal(2, 0.5, size=(5, 4, 16, 16)).astype(np.float32)
    guessed = first_channels(features, likely)
    assert guessed.shape == (3, 4, 16, 16)
    assert guessed.mean() == pytest.approx(2, abs=0.1)
    assert guessed.std() == pytest.approx(0.5, abs=0.1)
    grey = channel_mean(features, (64, 64))
    assert grey.shape == (3, 64, 64, 3)
    assert (grey.min(), grey.max()) == (0, 255)

"""The table of picture formats is made with what device and server really do."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from audit.pictures.asking import EXACT, Asked, Plan, ask
from audit.pictures.denoising import synchronized, unsynchronized
from audit.pictures.model import open_public_model
from benchmarks.picture_formats.chosen_formats import FORMATS, bits_of, family_of
from benchmarks.picture_formats.scores import Scores, compare
from edge_runtime import ImageGenerator, PictureSpec
from lambda_split.wire.frames import HEADER_BYTES
from lambda_split.wire.tensor_format import TensorFormat, payload_bytes
from tests.servers import serving
from tests.tiny_pipelines import save_tiny_pipeline

PROMPTS = ("a red cat", "a small blue dog on the left")
SEEDS = (3, 4)
PLAN = Plan(PROMPTS, SEEDS, steps=4, guidance=7.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("formats") / "sdxl"
    save_tiny_pipeline("sdxl", place)
    return place


@pytest.fixture(scope="module")
def painter(folder):
    return open_public_model(str(folder))


def form_of(label: str) -> TensorFormat:
    form = TensorFormat.from_label(label)
    assert form is not None
    return form


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    error = float(np.mean((found.astype(np.float64) - wanted) ** 2))
    return 200.0 if error == 0 else 20 * np.log10(float(np.ptp(wanted)) / np.sqrt(error))


@pytest.mark.slow
def test_the_latents_are_those_of_a_device_and_a_server(folder, painter, tmp_path) -> None:
    from export.command import add_arguments, run  # as the command line does

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    bundle = tmp_path / "bundle"
    exported = [str(folder), "--out", str(bundle), "--weights", "fp32", "--quiet"]
    assert run(parser.parse_args(exported)) == 0
    with serving(str(folder)) as server:
        for label, together in (
            ("fp32", True),
            ("int4", True),
            ("nf4-delta", True),
            ("int4", False),
        ):
            form = form_of(label)
            asked = ask(painter, PLAN, form, synchronized=together)
            if together:
                receivers = synchronized(painter.denoiser, asked, form)
            else:
                receivers = unsynchronized(painter.denoiser, asked, [form])[form]
            spec = {"steps": PLAN.steps, "guidance": PLAN.guidance, "synchronized": together}
            with ImageGenerator.open(bundle, server.url, format=label) as device:
                for prompt_number, prompt in enumerate(PROMPTS):
                    for seed_number, seed in enumerate(SEEDS):
                        result = device.generate(prompt, spec=PictureSpec(**spec, seed=seed))
                        own = receivers[prompt_number * len(SEEDS) + seed_number]
                        # Text encoders in ONNX, and fewer rows at a time: rounded otherwise.
                        assert psnr(own.state.sample, result.latents) >= 60, label
            carried = sum(HEADER_BYTES + len(payload) for payload in own.payloads)
            assert carried < result.stats.bytes_down < carried + 200  # and that it has begun


def test_a_trunk_of_its_own_noise_ends_elsewhere(painter) -> None:
    form = form_of("int3")
    exact = synchronized(painter.denoiser, ask(painter, PLAN, EXACT, synchronized=True), EXACT)
    asked = ask(painter, PLAN, form, synchronized=True)
    together = synchronized(painter.denoiser, asked, form)
    apart = unsynchronized(painter.denoiser, asked, [form, EXACT])
    assert not np.array_equal(together[0].state.sample, apart[form][0].state.sample)
    assert psnr(apart[EXACT][0].state.sample, exact[0].state.sample) >= 60  # fp16 conditioning
    assert [len(one) for one in together[0].payloads] == [payload_bytes(form, (1, 4, 16, 16))] * 4
    assert len(together[0].states) == PLAN.steps


def test_a_picture_does_not_depend_on_what_is_made_beside_it(painter) -> None:
    form = form_of("nf8")
    asked: list[Asked] = ask(painter, PLAN, form, synchronized=True)
    all_at_once = synchronized(painter.denoiser, asked, form)
    alone = synchronized(painter.denoiser, asked[2:3], form)
    assert psnr(all_at_once[2].state.sample, alone[0].state.sample) >= 60


def test_pictures_are_scored_by_how_near_they_are(painter) -> None:
    wanted = painter.decode(np.random.default_rng(0).normal(size=(2, 4, 16, 16)).astype(np.float32))
    assert wanted.shape == (2, 64, 64, 3)
    same = Scores.mean(compare(wanted, wanted))
    assert same.psnr == np.inf
    assert (same.ssim, same.vif) == pytest.approx((1, 1))
    # VIF's own property: more contrast is more information than there was.
    middle = wanted.mean(axis=(1, 2), keepdims=True)
    stretched = Scores.mean(compare(middle + 1.2 * (wanted - middle), wanted))
    assert stretched.vif > 1 > stretched.ssim
    noise = np.random.default_rng(1).normal(0, 1, size=wanted.shape).astype(np.float32)
    less, more = (Scores.mean(compare(wanted + size * noise, wanted)) for size in (2, 8))
    assert less.psnr == pytest.approx(20 * np.log10(255 / 2), abs=0.1)
    assert less.psnr > more.psnr
    assert 1 > less.ssim > more.ssim > 0
    assert 1 > less.vif > more.vif > 0


def test_a_flat_picture_has_no_information_to_keep() -> None:
    flat = np.full((1, 48, 48, 3), 7, np.float32)
    (score,) = compare(flat + 1, flat)
    assert np.isnan(score.vif)
    assert Scores.mean([score, Scores(10, 0.5, 0.25)]).vif == 0.25


def test_formats_are_sorted_into_families() -> None:
    assert len({form.label for form in FORMATS}) == len(FORMATS) == 3 + 5 * 8
    assert family_of(form_of("nf4-channel-delta")) == "nf-channel-delta"
    assert family_of(form_of("int1")) == "int"
    assert family_of(form_of("fp8-e4m3")) == "fp8-e4m3"
    assert bits_of(form_of("nf3-delta")) == 3

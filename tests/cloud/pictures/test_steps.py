"""Steps of the whole denoiser bring what its UNet predicts, and go on from states."""

import numpy as np
import pytest
import torch

from lambda_split.wire.pictures.settings import Denoising
from tests.cloud.pictures.bench import (
    ANCESTRAL,
    DPM,
    EULER,
    FP16,
    FP32,
    INT8,
    NF4_DELTA,
    STEPS,
    normal,
)


@torch.inference_mode()
def plain(bench, settings, conditioning):
    """The picture's noise of each step, by diffusers' own UNet and nothing of the engine."""
    way = bench.trajectory(settings)
    context, pooled = (torch.from_numpy(tensor) for tensor in conditioning)
    ids = torch.tensor([settings.time_ids] * 2)
    state, noises = way.start(), []
    for step in range(STEPS):
        scaled = torch.from_numpy(way.solver.scale_input(state.sample, step))
        positive, negative = bench.unet(
            torch.cat([scaled, scaled]),
            way.solver.timesteps[step],
            encoder_hidden_states=context,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": ids},
        ).sample.chunk(2)
        noise = (negative + settings.guidance * (positive - negative)).numpy()
        noises.append(noise)
        state = way.after(noise, step, state)
    return noises


@pytest.mark.parametrize("scheduler", [EULER, ANCESTRAL, DPM], ids=lambda each: each.class_name)
def test_steps_bring_what_the_unet_predicts(bench, scheduler):
    settings = bench.settings(denoising=Denoising(scheduler=scheduler, steps=STEPS, seed=3))
    conditioning = bench.conditioning(settings)
    session = bench.open()
    bench.begin(session, settings, conditioning)
    for step, expected in enumerate(plain(bench, settings, conditioning)):
        noise = bench.noise(bench.step(session, settings, step), settings)
        np.testing.assert_allclose(noise, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", [FP32, FP16, INT8, NF4_DELTA], ids=lambda form: form.label)
@pytest.mark.parametrize("scheduler", [EULER, ANCESTRAL, DPM], ids=lambda each: each.class_name)
def test_the_trunk_goes_the_way_of_what_it_sent(bench, scheduler, form):
    settings = bench.settings(denoising=Denoising(scheduler=scheduler, steps=STEPS, seed=3))
    session, way = bench.open(form=form), bench.trajectory(settings)
    bench.begin(session, settings)
    state = way.start()
    reference = way.first_reference(state)
    for step in range(STEPS):
        payload = bench.step(session, settings, step, form=form)
        reference = bench.noise(payload, settings, form, reference)
        state = way.after(reference, step, state)
        held = bench.state(session)
        assert held.step == step + 1
        assert np.array_equal(held.state.sample, state.sample)
        assert all(map(np.array_equal, held.state.memory, state.memory))


def test_without_synchronization_the_trunk_goes_its_own_way(bench):
    denoising = Denoising(scheduler=EULER, steps=STEPS, seed=3, synchronized=False)
    settings = bench.settings(denoising=denoising)
    exact, coded = bench.open(), bench.open(form=NF4_DELTA)
    for session in (exact, coded):
        bench.begin(session, settings)
    for step in range(2):
        bench.step(exact, settings, step)
        bench.step(coded, settings, step, form=NF4_DELTA)
        one, other = bench.state(exact), bench.state(coded)
        np.testing.assert_array_equal(one.state.sample, other.state.sample)
        assert not np.array_equal(one.reference, other.reference)  # what the device has


@pytest.mark.parametrize("form", [FP32, NF4_DELTA], ids=lambda form: form.label)
@pytest.mark.parametrize("scheduler", [EULER, ANCESTRAL, DPM], ids=lambda each: each.class_name)
def test_a_picture_goes_on_elsewhere_from_its_state(bench, scheduler, form):
    settings = bench.settings(denoising=Denoising(scheduler=scheduler, steps=STEPS, seed=3))
    first, second = bench.open(form=form), bench.open(form=form)
    bench.begin(first, settings)
    for step in range(2):
        bench.step(first, settings, step, form=form)
    held = bench.state(first)
    tensors = [held.state.sample, *held.state.memory]
    if form.delta:
        tensors.append(held.reference)
    bench.begin(second, settings)
    assert bench.step(first, settings, 2, form=form) == bench.step(
        second, settings, 2, tensors, form=form
    )
    assert bench.step(first, settings, 3, form=form) == bench.step(second, settings, 3, form=form)


def test_a_picture_may_start_from_latents_of_the_device_s_own(bench):
    settings = bench.settings()
    way = bench.trajectory(settings)
    latents = way.solver.start(normal((1, 4, 6, 8), 9)).sample
    session = bench.open(form=NF4_DELTA)
    bench.begin(session, settings)
    payload = bench.step(session, settings, 0, [latents], form=NF4_DELTA)
    reference = way.solver.scale_input(latents, 0)
    assert np.array_equal(
        bench.state(session).reference, bench.noise(payload, settings, NF4_DELTA, reference)
    )

"""Guidance, prompts of several images, and the scale that distilled denoisers are told."""

import msgspec
import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg

from cloud.pictures.denoiser import guided
from tests.cloud.pictures.bench import Bench


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
def test_guidance_is_diffusers_own(images, rescale):
    torch.manual_seed(0)
    prompt, negative = torch.randn(images, 4, 6, 8), torch.randn(images, 4, 6, 8)
    expected = negative + 7.5 * (prompt - negative)
    if rescale:
        expected = rescale_noise_cfg(expected, prompt, guidance_rescale=rescale)
    result = guided(torch.cat([prompt, negative]), images, 7.5, rescale)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)


def test_zeros_need_not_be_sent(bench):
    sent, zeros = bench.settings(), bench.settings(negative="zeros")
    told = bench.conditioning(zeros)
    one, other = bench.open(), bench.open()
    bench.begin(one, zeros, told)
    bench.begin(other, sent, [np.concatenate([each, np.zeros_like(each)]) for each in told])
    assert bench.step(one, zeros, 0) == bench.step(other, sent, 0)


def test_each_image_has_its_prompt(bench):
    settings = bench.settings(images=2, prompts=2)
    told = bench.conditioning(settings)
    session = bench.open()
    bench.begin(session, settings, told)
    both = bench.noise(bench.step(session, settings, 0), settings)
    for image in range(2):
        denoising = msgspec.structs.replace(settings.denoising, first_image=image)
        single = bench.settings(denoising=denoising)
        bench.begin(session, single, [each[[image, image + 2]] for each in told])
        noise = bench.noise(bench.step(session, single, 0), single)
        np.testing.assert_allclose(both[image : image + 1], noise, rtol=1e-4, atol=1e-4)


def test_a_distilled_denoiser_is_told_its_scale():
    bench = Bench("lcm")
    settings = bench.settings(negative="none")
    (context,) = bench.conditioning(settings)
    session, way = bench.open(), bench.trajectory(settings)
    bench.begin(session, settings, [context])
    noise = bench.noise(bench.step(session, settings, 0), settings)
    embedded = bench.pipeline.get_guidance_scale_embedding(
        torch.tensor([settings.guidance_embedding - 1]), embedding_dim=24
    )
    with torch.inference_mode():
        expected = bench.unet(
            torch.from_numpy(way.solver.scale_input(way.start().sample, 0)),
            way.solver.timesteps[0],
            encoder_hidden_states=torch.from_numpy(context),
            timestep_cond=embedded,
        ).sample
    np.testing.assert_allclose(noise, expected.numpy(), rtol=1e-4, atol=1e-4)

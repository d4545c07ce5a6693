"""The deep split: first, inner and last blocks are the whole denoiser."""

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from cloud.pictures.denoiser import Conditioning, Denoiser
from lambda_split.diffusion.gaussian import standard_normal
from lambda_split.errors import PictureImpossible
from lambda_split.partition.pipelines.deep import FirstBlocks, LastBlocks, Told, deep_geometry
from lambda_split.wire.pictures.layout import inner_shapes
from lambda_split.wire.tensor_codecs import decode
from tests.cloud.pictures.bench import FP32, Bench, normal


@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 10), (7, 9), (5, 4), (3, 3)], ids=str)
@pytest.mark.parametrize("name", ["sdxl", "sd1", "sd2", "lcm"])
@torch.inference_mode()
def test_first_inner_and_last_blocks_are_the_whole_denoiser(name, height, width):
    bench = Bench(name)
    settings = bench.settings(
        images=2, height=height, width=width, timesteps=(801.0, 401.0, 1.0), prompts=2
    )
    conditioning = bench.conditioning(settings)
    context, *pooled = (torch.from_numpy(each) for each in conditioning)
    latents = torch.from_numpy(standard_normal(5, 0, range(4), (4, height, width)))
    added = embedded = None
    if pooled:
        ids = torch.tensor(settings.time_ids)[None].expand(4, -1)
        added = {"text_embeds": pooled[0], "time_ids": ids}
    if settings.guidance_embedding is not None:
        scale = torch.tensor([settings.guidance_embedding - 1] * 4)
        embedded = bench.pipeline.get_guidance_scale_embedding(scale, embedding_dim=24)
    first, last = FirstBlocks(bench.unet), LastBlocks(bench.unet)
    session = bench.open(split="deep")
    bench.begin(session, settings, conditioning)
    entering, leaving = inner_shapes(settings, bench.geometry.deep)
    for step in (2, 0, 1):  # in any order
        timesteps = torch.full((4,), settings.timesteps[step])
        told = Told(timesteps, context, added, embedded)
        features, embedding, *skips = first(latents, told)
        assert features.shape == entering
        payload = bench.step(session, settings, step, [features.numpy()])
        inner = torch.from_numpy(decode(payload, FP32, leaving))
        noise = last(inner, embedding, context, *skips)
        expected = bench.unet(
            latents,
            timesteps,
            encoder_hidden_states=context,
            timestep_cond=embedded,
            added_cond_kwargs=added,
        ).sample
        torch.testing.assert_close(noise, expected, rtol=1e-4, atol=1e-4)


def test_the_whole_denoiser_is_whole_after_it_was_cut(bench):
    assert bench.unet.up_blocks[-2].upsamplers is not None
    assert bench.denoiser.deep == deep_geometry(bench.unet)


def test_whole_and_deep_pictures_run_apart(bench):
    deep, whole = bench.settings(timesteps=(1.0,)), bench.settings()
    one, other = bench.open(split="deep"), bench.open()
    bench.begin(one, deep)
    bench.begin(other, whole)
    entering, leaving = inner_shapes(deep, bench.geometry.deep)
    outcomes = bench.run(
        bench.asked(one, deep, 0, [normal(entering, 0)]), bench.asked(other, whole, 0)
    )
    assert [len(outcome.payload) for outcome in outcomes] == [4 * np.prod(leaving), 4 * 4 * 48]


def test_a_denoiser_of_one_block_cannot_be_cut():
    unet = UNet2DConditionModel(
        block_out_channels=(32,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=32,
    )
    denoiser = Denoiser(unet, device=torch.device("cpu"), dtype=torch.float32)
    assert denoiser.deep is None
    with pytest.raises(PictureImpossible):
        denoiser.predict_inner(
            torch.zeros(1, 32, 4, 4), torch.ones(1), Conditioning(torch.zeros(1, 5, 32))
        )

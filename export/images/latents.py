"""Latents that a decoder is measured on, and an int8 decoder's ranges come from.

What a decoder meets are latents at the end of a denoising: nearly of unit variance, and smooth over
long distances. The pipeline itself makes the best examples. Artificial ones are noise of several
scales, which has the variance and the smoothness, but not what a model draws.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from numpy.typing import NDArray
from torch import nn

from export.progress import Progress
from lambda_split.errors import CheckpointInvalid, UsageError
from lambda_split.partition.files import read_json_object
from lambda_split.partition.pipelines import Pipeline, load_unet

__all__ = [
    "CALIBRATION_GUIDANCE",
    "SCHEDULER_CONFIG",
    "PromptEmbeddings",
    "Watcher",
    "artificial_latents",
    "pipeline_latents",
]

Floats = NDArray[np.float32]
PromptEmbeddings = dict[str, torch.Tensor]
Watcher = Callable[[tuple[Any, ...], dict[str, Any]], None]
"""Is given the arguments of each run of a pipeline's UNet."""

CALIBRATION_GUIDANCE = 5.0
"""Scale of guidance of the pictures that ranges come from."""

SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
_MAX_BYTES = 1024 * 1024
_LARGEST_SIDE = 64  # of latents: a picture of 512 pixels shows a decoder all that a larger one does
_SMALLEST_STEP = 8  # sides that every denoiser halves without a rest
_SCHEDULERS = {one.name for one in KarrasDiffusionSchedulers} | {"LCMScheduler"}


def artificial_latents(count: int, channels: int, height: int, width: int) -> list[Floats]:
    """Noise of four scales, the same at each call.

    Args:
        count: How many.
        channels: Of each.
        height: Of each.
        width: Of each.

    Returns:
        float32 (1, channels, height, width) each, of unit variance.
    """
    generator = np.random.default_rng(0)
    return [_mixture(generator, channels, height, width) for _ in range(count)]


def _mixture(generator: np.random.Generator, channels: int, height: int, width: int) -> Floats:
    total = np.zeros((channels, height, width), np.float32)
    for share, step in ((0.4, 1), (0.3, 2), (0.5, 4), (0.7, 8)):  # squares add up to nearly 1
        rows, columns = -(-height // step), -(-width // step)
        coarse = generator.standard_normal((channels, rows, columns), np.float32)
        fine = coarse.repeat(step, axis=1).repeat(step, axis=2)
        total += np.float32(share) * fine[:, :height, :width]
    return total[None]


def pipeline_latents(
    pipeline: Pipeline,
    vae: nn.Module,
    embeddings: PromptEmbeddings,
    *,
    steps: int,
    progress: Progress,
    watcher: Watcher | None = None,
) -> list[Floats]:
    """Latents of pictures that the pipeline makes; its UNet is loaded and released.

    Args:
        pipeline: The pipeline.
        vae: Its VAE; only its settings are used.
        embeddings: ``prompt_embeds`` (N, T, W) and, where the model takes them,
            ``pooled_prompt_embeds`` (N, P); their ``negative_`` counterparts (1, …).
        steps: Denoising steps.
        progress: Told about each picture.
        watcher: Sees the UNet's runs.

    Returns:
        float32 (1, channels, h, w) for each prompt, of unit variance more or less.

    Raises:
        CheckpointError: the UNet or the scheduler cannot be read.
        UsageError: the latents are not finite.
    """
    count = len(embeddings["prompt_embeds"])
    progress.stage("making pictures to calibrate on", count)
    unet = load_unet(pipeline, half=True)
    if watcher is not None:
        unet.register_forward_pre_hook(
            lambda _, given, named: watcher(given, named), with_kwargs=True
        )
    parts: dict[str, Any] = {
        "vae": vae,
        "unet": unet,
        "scheduler": _scheduler(pipeline),
        "text_encoder": None,
        "tokenizer": None,
    }
    if pipeline.family == "stable-diffusion-xl":
        parts |= {"text_encoder_2": None, "tokenizer_2": None}
        parts["add_watermarker"] = False
        name = "StableDiffusionXLPipeline"
    else:
        parts |= {"safety_checker": None, "feature_extractor": None}
        parts["requires_safety_checker"] = False
        name = "StableDiffusionPipeline"
    whole = _pipeline_class(name)(**parts)
    whole.set_progress_bar_config(disable=True)
    made: list[Floats] = []
    for number in range(count):
        given = {
            name: value if name.startswith("negative") else value[number : number + 1]
            for name, value in embeddings.items()
        }
        latents = whole(
            **given,
            height=_side(pipeline.facts.height) * whole.vae_scale_factor,
            width=_side(pipeline.facts.width) * whole.vae_scale_factor,
            num_inference_steps=steps,
            guidance_scale=CALIBRATION_GUIDANCE,
            generator=torch.Generator().manual_seed(number),
            output_type="latent",
        ).images
        if not bool(torch.isfinite(latents).all()):
            reason = "the pipeline makes latents that are not finite: calibrate on artificial ones"
            raise UsageError(f"{reason} (--calibrate-steps 0)")
        made.append(latents.numpy())
        progress.advance()
    return made


def _side(size: int) -> int:
    return size if size < _SMALLEST_STEP else min(size, _LARGEST_SIDE) // _SMALLEST_STEP * 8


def _pipeline_class(name: str) -> Any:  # noqa: ANN401  # the library's type is loose
    """A class of diffusers', without what its import says of image processors nobody asked for."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.ERROR)
    try:
        return getattr(diffusers, name)
    finally:
        transformers.logging.set_verbosity(before)


def _scheduler(pipeline: Pipeline) -> Any:  # noqa: ANN401 - one of the library's many classes
    name = pipeline.index.scheduler
    path = pipeline.files.get(SCHEDULER_CONFIG)
    if name not in _SCHEDULERS:
        raise CheckpointInvalid(str(path), f"{name} is not a scheduler of these pipelines")
    config = read_json_object(path, max_bytes=_MAX_BYTES)
    try:
        return getattr(diffusers, name).from_config(config)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise CheckpointInvalid(str(path), str(error)) from error

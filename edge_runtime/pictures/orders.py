"""From what a user asks to what the trunk is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edge_runtime.pictures.blocks import Told
from edge_runtime.pictures.guidance import Guidance
from edge_runtime.pictures.prompts import EncodedPrompts, PromptEncoders
from edge_runtime.pictures.request import PictureSpec, draw_seed, scheduler_of
from edge_runtime.pictures.runs import PictureOrder
from lambda_split.diffusion.scheduler_config import SchedulerConfig
from lambda_split.errors import UsageError
from lambda_split.image_bundle import ImageManifest
from lambda_split.wire.pictures.settings import Denoising, PictureSettings
from lambda_split.wire.pictures.trajectory import Trajectory
from lambda_split.wire.tensor_format import Base, TensorFormat

__all__ = ["make_order"]

Latents = npt.NDArray[np.float32]


def make_order(
    spec: PictureSpec,
    prompt: str,
    negative_prompt: str,
    *,
    manifest: ImageManifest,
    encoders: PromptEncoders,
    scheduler: SchedulerConfig,
    exact: bool,
    latents: Latents | None = None,
) -> PictureOrder:
    """Encode the prompts and say what the trunk has to do.

    Args:
        spec: What is asked for, checked.
        prompt: What to show.
        negative_prompt: What to lead away from.
        manifest: Of the bundle.
        encoders: Its text encoders.
        scheduler: Its scheduler's settings.
        exact: Whether the conditioning goes in fp32, and not in fp16.
        latents: float32 (images, C, h, w), noise of variance 1 to start from; the seed's where
            None.

    Raises:
        UsageError: latents of another shape or that are no finite numbers, a solver that is not
            known, or a prompt that is no text.
        SchedulerUnsupported: the scheduler cannot be followed.
        BundleError: a tokenizer or a graph fails.
    """
    told = manifest.conditioning
    height, width = spec.size(manifest)
    factor = manifest.latents.scale_factor
    shape = (manifest.latents.channels, height // factor, width // factor)
    distilled = told.guidance_embedding is not None
    guides = spec.guidance > 1 and not distilled
    prompts = [encoders.encode([prompt])]
    negative: Literal["none", "zeros", "sent"] = "none"
    if guides and told.force_zeros_for_empty_prompt and not negative_prompt:
        negative = "zeros"
    elif guides:
        negative = "sent"
        prompts.append(encoders.encode([negative_prompt]))
    denoising = Denoising(
        scheduler=scheduler_of(scheduler, spec, manifest),
        steps=spec.steps,
        seed=draw_seed() if spec.seed is None else spec.seed,
        synchronized=spec.synchronized,
    )
    settings = PictureSettings(
        images=spec.images,
        height=shape[1],
        width=shape[2],
        context_tokens=encoders.tokens,
        negative=negative,
        guidance=spec.guidance if guides else 1.0,
        rescale=spec.rescale if guides else 0.0,
        guidance_embedding=spec.guidance if distilled else None,
        # Original size, crop, target size: as if the picture had been photographed like this.
        time_ids=(height, width, 0, 0, height, width) if told.time_ids else (),
        denoising=denoising,
    )
    trajectory = Trajectory.of(denoising, spec.images, shape)
    start = None
    if latents is not None:
        start = trajectory.solver.start(_checked(latents, (spec.images, *shape)))
    form = TensorFormat(Base.FP32 if exact else Base.FP16)
    order = PictureOrder(settings, _joined(prompts), form, trajectory, start)
    return order if manifest.split == "whole" else _deep(order)


def _checked(latents: Latents, shape: tuple[int, ...]) -> Latents:
    """What a caller gives as noise, as float32."""
    try:
        given = np.asarray(latents)
    except ValueError as error:  # lists of different lengths
        raise UsageError(f"latents must be an array of shape {shape}") from error
    if given.shape != shape:
        raise UsageError(f"latents of shape {given.shape}, not {shape}")
    if given.dtype.kind in "fiu":
        with np.errstate(over="ignore"):  # infinite, then
            noise = given.astype(np.float32)
        if np.isfinite(noise).all():
            return noise
    raise UsageError("latents must be finite real numbers")


def _deep(order: PictureOrder) -> PictureOrder:
    """The same picture where the device has the denoiser's first and last blocks.

    The trunk is told neither seed nor solver, nor how strongly the pictures are guided.
    """
    settings = order.settings
    guidance = Guidance(settings.guidance, settings.rescale) if settings.branches == 2 else None
    asked = msgspec.structs.replace(
        settings,
        guidance=1.0,
        rescale=0.0,
        denoising=None,
        timesteps=order.trajectory.solver.timesteps,
    )
    return replace(order, settings=asked, told=_told(asked, order.conditioning), guidance=guidance)


def _told(settings: PictureSettings, conditioning: Sequence[Latents]) -> Told:
    """What each row is told, as a trunk works it out: the prompt's images, then the negative's."""
    rows = settings.images * settings.branches
    told = {
        role: _of_rows(tensor, settings)
        for role, tensor in zip(("context", "pooled"), conditioning, strict=False)
    }
    if settings.time_ids:
        told["time_ids"] = np.tile(np.array(settings.time_ids, np.float32), (rows, 1))
    if settings.guidance_embedding is not None:
        told["guidance"] = np.full(rows, settings.guidance_embedding, np.float32)
    return Told(told)


def _of_rows(tensor: Latents, settings: PictureSettings) -> Latents:
    """(1, …), or (2, …) with a negative prompt's, -> (images × branches, …)."""
    branches = [tensor[:1]]
    if settings.negative == "sent":
        branches.append(tensor[1:])
    elif settings.negative == "zeros":
        branches.append(np.zeros_like(tensor[:1]))
    return np.concatenate(branches).repeat(settings.images, axis=0)


def _joined(prompts: Sequence[EncodedPrompts]) -> list[Latents]:
    """Context of all prompts, then their pooled output where there is one."""
    tensors = [np.concatenate([each.context for each in prompts])]
    pooled = [each.pooled for each in prompts if each.pooled is not None]
    if pooled:
        tensors.append(np.concatenate(pooled))
    return tensors

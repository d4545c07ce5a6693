"""A pipeline's ends in PyTorch: prompts to what the denoiser is told, latents to pixels."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import StableDiffusionXLPipeline

from cloud.pictures.denoiser import Conditioning, Denoiser
from lambda_split.diffusion.scheduler_config import (
    SchedulerConfig,
    parse_scheduler_config,
    with_known_solver,
)
from lambda_split.partition.sources import DEMO_IMAGE, open_pipeline_files
from lambda_split.wire.tensor_codecs import decode, encode
from lambda_split.wire.tensor_format import TensorFormat

__all__ = ["Painter", "open_painter"]

Floats = npt.NDArray[np.float32]
_CHUNK = 20  # pictures that are encoded or decoded at a time


@dataclass(frozen=True, eq=False)
class Painter:
    """A pipeline with the architecture of SDXL, in float32.

    Attributes:
        pipeline: diffusers' ``StableDiffusionXLPipeline``, for its text encoders and its VAE.
        denoiser: The trunk's denoiser, with the pipeline's UNet.
        scheduler: The model's own settings.
    """

    pipeline: Any  # the library's class says little of its parts
    denoiser: Denoiser
    scheduler: SchedulerConfig

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the latents of the model's own size."""
        config: Any = self.denoiser.unet.config
        return config.in_channels, config.sample_size, config.sample_size

    def conditioning(self, prompts: Sequence[str], form: TensorFormat) -> list[Conditioning]:
        """What the trunk is told of each prompt after it crossed the wire.

        Args:
            prompts: What to show.
            form: How the encoding crosses.

        Returns:
            Two rows for each prompt: its own, and that of the empty negative prompt.
        """
        found: list[Conditioning] = []
        for first in range(0, len(prompts), _CHUNK):
            with torch.inference_mode():
                context, negative, pooled, negative_pooled = self.pipeline.encode_prompt(
                    list(prompts[first : first + _CHUNK]), do_classifier_free_guidance=True
                )
            rows = zip(context, negative, pooled, negative_pooled, strict=True)
            found += [
                Conditioning(
                    context=_crossed([prompt, empty], form),
                    pooled=_crossed([own, empty_pooled], form),
                    time_ids=self._time_ids(),
                )
                for prompt, empty, own, empty_pooled in rows
            ]
        return found

    def decode(self, latents: Floats) -> Floats:
        """Make pixels.

        Args:
            latents: float32 (n, C, h, w), as the solver leaves them.

        Returns:
            float32 (n, height, width, 3), from 0 to 255 and not rounded, so that a loss too small
            to be seen still has a size.
        """
        vae: Any = self.pipeline.vae
        pictures = []
        for first in range(0, len(latents), _CHUNK):
            part = torch.from_numpy(latents[first : first + _CHUNK])
            with torch.inference_mode():
                decoded = vae.decode(part / vae.config.scaling_factor, return_dict=False)[0]
            # (n, 3, height, width) -> (n, height, width, 3)
            pixels = ((decoded / 2 + 0.5).clamp(0, 1) * 255).permute(0, 2, 3, 1)
            pictures.append(np.asarray(pixels.numpy(), np.float32))
        return np.concatenate(pictures)

    def _time_ids(self) -> torch.Tensor:
        """(2, 6): original size, crop and target size, as the device tells them."""
        side = float(self.shape[1] * self.pipeline.vae_scale_factor)
        return torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32).expand(2, -1)


def open_painter(model: str) -> Painter:
    """Open a pipeline.

    Args:
        model: A local folder, or ``demo-image`` for the shipped one.
    """
    folder = pathlib.Path(model)
    if model == DEMO_IMAGE:
        found = open_pipeline_files(model, None).find("model_index.json")
        if found is None:
            raise SystemExit("the demo image model is not there")
        folder = pathlib.Path(found).parent
    kind: Any = StableDiffusionXLPipeline
    pipeline = kind.from_pretrained(
        str(folder), dtype=torch.float32, add_watermarker=False, local_files_only=True
    )
    denoiser = Denoiser(pipeline.unet, device=torch.device("cpu"), dtype=torch.float32)
    settings = (folder / "scheduler" / "scheduler_config.json").read_bytes()
    return Painter(pipeline, denoiser, with_known_solver(parse_scheduler_config(settings)))


def _crossed(rows: Sequence[torch.Tensor], form: TensorFormat) -> torch.Tensor:
    values = np.asarray(torch.stack(list(rows)).numpy(), np.float32)
    return torch.from_numpy(decode(encode(values, form), form, values.shape))

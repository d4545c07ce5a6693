"""Making pictures with the shipped pipeline, by diffusers itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline

from .drawing import Pixels, Size
from .recipe import SIDE

STEPS: Final = 25
GUIDANCE: Final = 5.0
#: Pictures that are made at once.
_CHUNK: Final = 16


def load_pipeline(folder: Path) -> StableDiffusionXLPipeline:
    """Open a pipeline: the float16 weights that are shipped, computed with in float32."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        str(folder), dtype=torch.float32, add_watermarker=False, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def render(
    pipeline: StableDiffusionXLPipeline,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    size: Size = (SIDE, SIDE),
    steps: int = STEPS,
    guidance: float = GUIDANCE,
) -> list[Pixels]:
    """Make a picture for each prompt.

    Args:
        pipeline: The pipeline.
        prompts: What to show.
        seeds: One a prompt; each picture starts from its own noise, whatever is made beside it.
        size: Height and width.
        steps: Steps of the solver.
        guidance: Scale of classifier-free guidance; 1 means without.

    Returns:
        uint8 ``(height, width, 3)``, one a prompt.
    """
    pictures: list[Pixels] = []
    for start in range(0, len(prompts), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        made = pipeline(
            prompt=list(prompts[chunk]),
            height=size[0],
            width=size[1],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[chunk]],
            output_type="np",
        ).images
        pictures += list(np.rint(made * 255).astype(np.uint8))
    return pictures

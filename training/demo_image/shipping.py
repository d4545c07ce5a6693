"""Writing the files that are shipped: a diffusers pipeline with weights in float16.

Every file is written beside its place and then renamed into it, so that a reader never sees
half a file.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline

from .denoiser import Denoiser
from .recipe import scheduler_config
from .tokenizer import load_tokenizers, save_tokenizers

Module = TypeVar("Module", bound=torch.nn.Module)


def ship_pipeline(
    denoiser: Denoiser, autoencoder: AutoencoderKL, scaling_factor: float, folder: Path
) -> None:
    """Write everything that ``StableDiffusionXLPipeline.from_pretrained`` needs.

    The models given are left as they are; what is written is rounded to float16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".shipping-") as name:
        staging = Path(name)
        save_tokenizers(staging)
        tokenizer, tokenizer_2 = load_tokenizers(staging)
        autoencoder.register_to_config(scaling_factor=round(scaling_factor, 6))
        pipeline = StableDiffusionXLPipeline(
            vae=_half(autoencoder),
            text_encoder=_half(denoiser.encoders.text_encoder),
            text_encoder_2=_half(denoiser.encoders.text_encoder_2),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer_2,
            unet=_half(denoiser.unet),
            scheduler=EulerDiscreteScheduler(**scheduler_config()),
            force_zeros_for_empty_prompt=True,
            add_watermarker=False,
        )
        pipeline.save_pretrained(staging)
        for part in ("tokenizer", "tokenizer_2"):
            # The library would write one file of its own instead of CLIP's two.
            shutil.rmtree(staging / part)
        save_tokenizers(staging)
        for path in sorted(path for path in staging.rglob("*") if path.is_file()):
            place = folder / path.relative_to(staging)
            place.parent.mkdir(exist_ok=True)
            path.chmod(0o644)  # safetensors writes private files.
            path.replace(place)


def write_text(path: Path, text: str) -> None:
    """Write a text file through a temporary one."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=".", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    # Temporary files are private by default; a shipped file is for everybody.
    written = Path(file.name)
    written.chmod(0o644)
    written.replace(path)


def to_json(value: object) -> str:
    """JSON as it is shipped: indented, keys in their own order, a newline at the end."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _half(model: Module) -> Module:
    """A copy in float16, with plain memory layout."""
    copied = copy.deepcopy(model).to(torch.float16)
    return copied.to(memory_format=torch.contiguous_format)

"""How often pictures show what was asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from random import Random

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline

from .autoencoder import as_tensor
from .captions import caption
from .drawing import Pixels, Size, draw, plain_view
from .judge import Verdict, judge
from .recipe import SIDE
from .rendering import GUIDANCE, STEPS, render
from .scene import Scene, Split, random_scene


@dataclass(frozen=True, slots=True)
class Following:
    """Of so many pictures, how many have what right."""

    asked: int
    background: int
    colours: int
    places: int
    kinds: int
    nothing_else: int
    all_right: int

    def as_dict(self) -> dict[str, int]:
        """The counts by name, for the training log."""
        return asdict(self)


def scenes_to_ask_for(split: Split, count: int) -> list[Scene]:
    """Scenes that training has not shown: other seeds, or held-out things."""
    rng = Random(f"following {split}")
    return [random_scene(split, rng) for _ in range(count)]


def following(pictures: list[Pixels], scenes: list[Scene]) -> Following:
    """Judge each picture by its scene."""
    verdicts = [judge(picture, scene) for picture, scene in zip(pictures, scenes, strict=True)]
    counts = {
        name: sum(getattr(verdict, name) for verdict in verdicts)
        for name in (*(field.name for field in fields(Verdict)), "all_right")
    }
    return Following(asked=len(scenes), **counts)


def prompted(
    pipeline: StableDiffusionXLPipeline,
    scenes: list[Scene],
    *,
    size: Size = (SIDE, SIDE),
    steps: int = STEPS,
    guidance: float = GUIDANCE,
) -> Following:
    """Render the scenes' captions and judge the pictures."""
    captions = [caption(scene) for scene in scenes]
    seeds = range(len(scenes))
    made = render(pipeline, captions, seeds=seeds, size=size, steps=steps, guidance=guidance)
    return following(made, scenes)


def unprompted(pipeline: StableDiffusionXLPipeline, scenes: list[Scene]) -> Following:
    """The control: pictures of an empty prompt, judged as if they had been asked for scenes."""
    made = render(pipeline, [""] * len(scenes), seeds=range(len(scenes)), guidance=1.0)
    return following(made, scenes)


def drawn(scenes: list[Scene]) -> tuple[list[Pixels], Following]:
    """The judge's own test: pictures that are right by making."""
    rng = Random("drawn")
    pictures = [draw(scene, plain_view((SIDE, SIDE)), rng) for scene in scenes]
    return pictures, following(pictures, scenes)


def decoded_again(
    autoencoder: AutoencoderKL, pictures: list[Pixels], scenes: list[Scene]
) -> tuple[Following, float]:
    """What the autoencoder alone loses: drawn pictures through latents and back.

    Returns:
        The counts, and the peak signal-to-noise ratio over all pictures in dB.
    """
    with torch.inference_mode():
        pixels = as_tensor(pictures)
        back = autoencoder.decode(autoencoder.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
    # Values lie in [-1, 1]: the peak is 2.
    psnr = float(10 * torch.log10(4 / (back - pixels).square().mean()))
    # Shape: (count, 3, height, width) -> (count, height, width, 3).
    again = ((back + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return following(list(again), scenes), psnr

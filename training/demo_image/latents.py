"""Second stage: pictures become latents once, and are used again and again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import torch
from diffusers import AutoencoderKL
from torch.nn.functional import avg_pool2d

from .autoencoder import as_tensor, random_size, save_checkpoint
from .captions import random_caption
from .drawing import Pixels, Size, View, draw, random_view
from .parallel import Workers
from .recipe import SIZES, Recipe
from .scene import Scene, Split, random_scene

CHECKPOINT: Final = "latents.pt"
#: Pictures that are encoded at once.
_CHUNK: Final = 32


@dataclass(frozen=True, slots=True)
class Batch:
    """Training examples of one size.

    Attributes:
        latents: Scaled to about unit variance, float32 ``(count, 4, height / 4, width / 4)``.
        time_ids: float32 ``(count, 6)``.
        captions: One a picture.
    """

    latents: torch.Tensor
    time_ids: torch.Tensor
    captions: list[str]

    def coarse(self) -> Batch:
        """The same pictures at half the size, a quarter of the work."""
        halves = torch.tensor([1, 1, 1, 1, 0.5, 0.5])
        return Batch(avg_pool2d(self.latents, 2), self.time_ids * halves, self.captions)


@dataclass(frozen=True, slots=True)
class Bucket:
    """All pictures of one size: their latents in float16, unscaled, and what they show."""

    latents: torch.Tensor
    time_ids: torch.Tensor
    scenes: list[Scene]


@dataclass(frozen=True, slots=True)
class _Plan:
    """A picture before it is drawn."""

    scene: Scene
    view: View
    seed: int


@dataclass(frozen=True, slots=True)
class Latents:
    """The encoded pictures by size, and the factor that scales them to unit variance."""

    buckets: dict[Size, Bucket]
    scaling_factor: float

    def batch(self, count: int, rng: Random) -> Batch:
        """Draw examples of one size, with fresh captions."""
        bucket = self.buckets[random_size(rng)]
        chosen = [rng.randrange(len(bucket.scenes)) for _ in range(count)]
        captions = [random_caption(bucket.scenes[number], rng) for number in chosen]
        latents = bucket.latents[chosen].float() * self.scaling_factor
        return Batch(latents, bucket.time_ids[chosen], captions)


def encode_pictures(
    model: AutoencoderKL, count: int, seed: int, workers: Workers, *, split: Split = "train"
) -> Latents:
    """Draw pictures of all sizes and encode them.

    Args:
        model: The trained autoencoder.
        count: Pictures in all.
        seed: Seed of the pictures.
        workers: Encode them.
        split: Which scenes.

    Returns:
        The latents; their scaling factor is one over their standard deviation.
    """
    buckets = {
        size: _bucket(plans, _encoded(model, plans, workers))
        for size, plans in _planned(count, seed, split).items()
    }
    spread = torch.cat([bucket.latents.flatten().float() for bucket in buckets.values()]).std()
    return Latents(buckets, 1 / float(spread))


def cached_latents(model: AutoencoderKL, recipe: Recipe, work: Path, workers: Workers) -> Latents:
    """The latents of the training pictures, from the folder of checkpoints if they are there.

    Only the numbers are kept there: what the pictures show follows from the seed.
    """
    path = work / CHECKPOINT
    if path.exists():
        saved = torch.load(path, weights_only=True)
        planned = _planned(recipe.pictures, recipe.seed, "train")
        buckets = {size: _bucket(plans, saved["encoded"][size]) for size, plans in planned.items()}
        return Latents(buckets, saved["scaling_factor"])
    found = encode_pictures(model, recipe.pictures, recipe.seed, workers)
    encoded = {size: bucket.latents for size, bucket in found.buckets.items()}
    save_checkpoint(path, {"encoded": encoded, "scaling_factor": found.scaling_factor})
    return found


def _planned(count: int, seed: int, split: Split) -> dict[Size, list[_Plan]]:
    rng = Random(seed)
    plans: dict[Size, list[_Plan]] = {size: [] for size in SIZES}
    for number in range(count):
        # The first ones see to it that there is a picture of each size.
        size = list(SIZES)[number] if number < len(SIZES) else random_size(rng)
        scene = random_scene(split, rng)
        plans[size].append(_Plan(scene, random_view(size, rng), rng.getrandbits(40)))
    return plans


def _encoded(model: AutoencoderKL, plans: list[_Plan], workers: Workers) -> torch.Tensor:
    """The means of latents, float16 ``(count, 4, height / 4, width / 4)``."""

    def encode(chunk: list[_Plan]) -> torch.Tensor:
        pictures: list[Pixels] = [draw(p.scene, p.view, Random(p.seed)) for p in chunk]
        with torch.inference_mode():
            pixels = as_tensor(pictures).contiguous(memory_format=torch.channels_last)
            return model.encode(pixels).latent_dist.mean.to(torch.float16)

    chunks = [plans[start : start + _CHUNK] for start in range(0, len(plans), _CHUNK)]
    return torch.cat(workers.map([partial(encode, chunk) for chunk in chunks]))


def _bucket(plans: list[_Plan], encoded: torch.Tensor) -> Bucket:
    time_ids = torch.tensor([plan.view.time_ids for plan in plans], dtype=torch.float32)
    return Bucket(encoded, time_ids, [plan.scene for plan in plans])

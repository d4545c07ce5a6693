"""First stage: the autoencoder between pictures and latents.

Most of a picture is flat background. So most of this stage sees windows of half the side, cut out
around a thing: four times as many for the same time. The last part sees whole pictures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL

from .drawing import Pixels, Size, draw, random_view
from .loop import Progress, run
from .parallel import Workers
from .recipe import SIDE, SIZES, Recipe, autoencoder_config
from .scene import Scene, random_scene
from .world import PLACES

#: How much of the stage sees windows.
_WINDOWS_UNTIL: Final = 0.85
_WINDOW: Final = SIDE // 2
#: Largest deviation of the noise on a latent.
_MOST_NOISE: Final = 0.1
CHECKPOINT: Final = "autoencoder.pt"


def as_tensor(pictures: list[Pixels]) -> torch.Tensor:
    """Pictures as what the autoencoder takes: float32 ``(count, 3, height, width)`` in [-1, 1]."""
    # Shape: (count, height, width, 3) -> (count, 3, height, width).
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return pixels.to(torch.float32) / 127.5 - 1


def random_size(rng: Random) -> Size:
    """Draw a size of training pictures."""
    return rng.choices(list(SIZES), weights=list(SIZES.values()))[0]


def autoencoder_loss(
    model: AutoencoderKL, pixels: torch.Tensor, noise: torch.Tensor, kl_weight: float
) -> torch.Tensor:
    """Mean absolute and squared errors, and a little divergence from the normal distribution.

    The noise on the latents makes decoding smooth. It is kept small: where the encoder may make it
    large, it soon gives a channel up to it, and none can be spared here.

    Args:
        model: The autoencoder.
        pixels: ``(count, 3, height, width)``.
        noise: Normal noise, ``(count, 4, height / 4, width / 4)``.
        kl_weight: Weight of the divergence.
    """
    posterior = model.encode(pixels).latent_dist
    mean, log_variance = posterior.mean, posterior.logvar
    deviation = (0.5 * log_variance).exp().clamp(max=_MOST_NOISE)
    error = model.decode(mean + noise * deviation).sample - pixels
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return error.abs().mean() + error.square().mean() + kl_weight * divergence


def train_autoencoder(
    recipe: Recipe, work: Path, workers: Workers, stop: threading.Event
) -> tuple[AutoencoderKL, Progress, bool]:
    """Run the stage, or what is left of it.

    Args:
        recipe: The numbers of the run.
        work: Folder of checkpoints; one that is there is gone on from.
        workers: Compute the gradients.
        stop: Set to end early, with a checkpoint.

    Returns:
        The model, what was done, and whether the stage is done.
    """
    torch.manual_seed(recipe.seed)
    model = AutoencoderKL(**autoencoder_config()).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    progress = Progress()
    if (work / CHECKPOINT).exists():
        saved = torch.load(work / CHECKPOINT, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        progress = Progress(**saved["progress"])
    schedule = recipe.autoencoder

    def take_step(step: int, rate: float) -> float:
        rng = Random(recipe.seed * 1_000_000 + step)
        whole = progress.share(schedule) >= _WINDOWS_UNTIL
        optimizer.param_groups[0]["lr"] = rate
        loss = workers.backward(
            [
                _part(model, recipe, _pictures(schedule.part, rng, whole=whole), rng)
                for _ in range(schedule.batch // schedule.part)
            ]
        )
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    def save() -> None:
        save_checkpoint(
            work / CHECKPOINT,
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "progress": asdict(progress),
            },
        )

    done = run("autoencoder", schedule, progress, take_step=take_step, save=save, stop=stop)
    return model, progress, done


def save_checkpoint(path: Path, state: dict[str, object]) -> None:
    """Write a checkpoint beside its place, then rename it: nobody ever reads half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _part(
    model: AutoencoderKL, recipe: Recipe, pictures: list[Pixels], rng: Random
) -> Callable[[], torch.Tensor]:
    pixels = as_tensor(pictures).contiguous(memory_format=torch.channels_last)
    count, _, height, width = pixels.shape
    generator = torch.Generator().manual_seed(rng.getrandbits(40))
    noise = torch.randn((count, 4, height // 4, width // 4), generator=generator)
    return lambda: autoencoder_loss(model, pixels, noise, recipe.kl_weight)


def _pictures(count: int, rng: Random, *, whole: bool) -> list[Pixels]:
    """Pictures of one size."""
    size = random_size(rng) if whole else (SIDE, SIDE)
    scenes = [random_scene("train", rng) for _ in range(count)]
    pictures = [draw(scene, random_view(size, rng), rng) for scene in scenes]
    if whole:
        return pictures
    return [_window(p, scene, rng) for p, scene in zip(pictures, scenes, strict=True)]


def _window(picture: Pixels, scene: Scene, rng: Random) -> Pixels:
    """A part of a picture around one of its things, the thing not always in the middle."""
    middle = PLACES[rng.choice(scene.things).place].middle
    top, left = (
        min(max(round(share * side) - _WINDOW // 2 + rng.randint(-8, 8), 0), side - _WINDOW)
        for share, side in zip(middle, picture.shape[:2], strict=True)
    )
    return picture[top : top + _WINDOW, left : left + _WINDOW]

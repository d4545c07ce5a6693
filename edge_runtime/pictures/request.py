"""What a user asks of a picture, checked."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from edge_runtime.given_numbers import finite_number, whole_number
from lambda_split.diffusion.scheduler_config import (
    SchedulerConfig,
    choose_solver,
    for_stable_diffusion,
    with_known_solver,
)
from lambda_split.errors import UsageError
from lambda_split.image_bundle import ImageManifest
from lambda_split.wire.pictures.settings import MAX_IMAGES, MAX_STEPS

__all__ = ["PictureSpec", "check_spec", "draw_seed", "scheduler_of"]

_LONGEST_SIDE = 4096
_LARGEST_SEED = (1 << 53) - 1


@dataclass(frozen=True, kw_only=True)
class PictureSpec:
    """How pictures are made.

    Attributes:
        steps: Runs of the denoiser.
        guidance: How closely the prompt is followed: the scale of classifier-free guidance, 1 being
            none; what a distilled model is told.
        rescale: Guidance rescale, 0 to 1 (arXiv 2305.08891), against glaring colours.
        height: In pixels; the model's own where None.
        width: In pixels.
        seed: The same seed makes the same picture; one is drawn where None.
        images: Pictures of one prompt.
        solver: ``euler``, ``euler-ancestral``, ``ddim``, ``dpm++2m``, ``dpm++2m-karras`` or
            ``lcm``; the model's own where None.
        synchronized: The trunk steps with what the device decodes (the default); otherwise with its
            own exact noise, and the two drift apart. With the split ``deep`` only the device steps.

    Raises:
        UsageError: a number is none. Whether a bundle can make it is seen when it is asked for.
    """

    steps: int = 25
    guidance: float = 5.0
    rescale: float = 0.0
    height: int | None = None
    width: int | None = None
    seed: int | None = None
    images: int = 1
    solver: str | None = None
    synchronized: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "images", "height", "width", "seed"):
            given = getattr(self, name)
            if given is not None or name in {"steps", "images"}:
                object.__setattr__(self, name, whole_number(name, given))
        for name in ("guidance", "rescale"):
            object.__setattr__(self, name, finite_number(name, getattr(self, name)))

    def size(self, manifest: ImageManifest) -> tuple[int, int]:
        """Height and width in pixels."""
        latents = manifest.latents
        height = latents.height if self.height is None else self.height
        width = latents.width if self.width is None else self.width
        return height, width


def check_spec(spec: PictureSpec, manifest: ImageManifest) -> None:
    """See whether a bundle can make what is asked for.

    Raises:
        UsageError: it cannot.
    """
    factor = manifest.latents.scale_factor
    for name, side in zip(("height", "width"), spec.size(manifest), strict=True):
        if not factor <= side <= _LONGEST_SIDE or side % factor:
            raise UsageError(
                f"{name} must be a multiple of {factor}, {_LONGEST_SIDE} at most, not {side}"
            )
    if not 1 <= spec.steps <= MAX_STEPS:
        raise UsageError(f"steps must be from 1 to {MAX_STEPS}, not {spec.steps}")
    if not 1 <= spec.images <= MAX_IMAGES:
        raise UsageError(f"from 1 to {MAX_IMAGES} images can be made at once")
    if spec.seed is not None and not 0 <= spec.seed <= _LARGEST_SEED:
        raise UsageError(f"seed must be from 0 to {_LARGEST_SEED}, not {spec.seed}")
    if not 0 <= spec.guidance <= 1000:
        raise UsageError(f"guidance must be from 0 to 1000, not {spec.guidance}")
    if manifest.split == "deep" and not spec.synchronized:
        raise UsageError("with the split 'deep' only the device takes steps: nothing drifts apart")
    if not 0 <= spec.rescale <= 1:
        raise UsageError(f"rescale must be from 0 to 1, not {spec.rescale}")


def scheduler_of(
    config: SchedulerConfig, spec: PictureSpec, manifest: ImageManifest
) -> SchedulerConfig:
    """The solver's settings for a picture.

    Raises:
        UsageError: no solver of that name.
        SchedulerUnsupported: the model's scheduler is not known, and no other was chosen.
    """
    chosen = (
        with_known_solver(config) if spec.solver is None else choose_solver(config, spec.solver)
    )
    if manifest.model.family == "stable-diffusion-xl":
        return chosen
    return for_stable_diffusion(chosen)


def draw_seed() -> int:
    """A seed that nobody can guess, small enough to type."""
    return secrets.randbelow(1 << 32)

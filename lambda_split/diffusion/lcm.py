"""The sampler of latent consistency models (Luo et al., arXiv 2310.04378, algorithm 3).

Each step predicts the picture at once and then adds noise for the next, less noisy one.
"""

from __future__ import annotations

import math

import numpy as np

from lambda_split.diffusion.ddim import predicted_from_share
from lambda_split.diffusion.noise_schedule import alphas_cumprod
from lambda_split.diffusion.scheduler_settings import SchedulerSettings
from lambda_split.diffusion.solver import Row, Solver, Weights
from lambda_split.diffusion.step_schedule import check_steps

__all__ = ["lcm"]

_SIGMA_DATA = 0.5  # the deviation of pictures that the distillation assumed


def lcm(settings: SchedulerSettings, steps: int) -> Solver:
    """Make the solver.

    Args:
        settings: Of an ``LCMScheduler``.
        steps: From 1 to ``original_inference_steps``, which the distillation used.

    Raises:
        UsageError: more steps than that.
        SchedulerUnsupported: the betas make no noise schedule, or nothing of the picture is left in
            a step whose denoiser predicts the noise.
    """
    check_steps(steps, settings.original_inference_steps)
    shares = alphas_cumprod(settings).tolist()
    timesteps = _timesteps(settings, steps)
    rows = []
    for step, timestep in enumerate(timesteps):
        if step + 1 < steps:
            after = shares[timesteps[step + 1]]
            following = Weights(original=math.sqrt(after), noise=math.sqrt(1.0 - after))
        else:
            following = Weights(original=1.0)
        rows.append(
            Row(
                timestep=float(timestep),
                predicted=predicted_from_share(settings, shares[timestep]),
                following=following,
                denoised=_boundary(timestep * settings.timestep_scaling),
            )
        )
    clip_range = settings.clip_sample_range if settings.clip_sample else None
    return Solver(tuple(rows), clip_range=clip_range)


def _timesteps(settings: SchedulerSettings, steps: int) -> list[int]:
    """Evenly chosen from the steps of the distillation, the noisiest first."""
    original = settings.original_inference_steps
    stride = settings.num_train_timesteps // original
    places = np.floor(np.linspace(0.0, original, steps, endpoint=False)).astype(np.int64)
    chosen = (original - places) * stride - 1
    result: list[int] = chosen.tolist()
    return result


def _boundary(time: float) -> Weights:
    """Sample and prediction mixed so that at time 0 the sample itself is the picture."""
    variance = _SIGMA_DATA * _SIGMA_DATA
    total = time * time + variance
    return Weights(sample=variance / total, original=time / math.sqrt(total))

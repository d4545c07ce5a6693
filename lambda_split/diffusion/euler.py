"""Euler's method on the probability flow (algorithm 2 of Karras et al., arXiv 2206.00364).

Latents are the picture plus sigma times noise, and the denoiser sees them scaled back to variance
1. The schedule and the predicted original serve the ancestral variant too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lambda_split.diffusion.elementary import log
from lambda_split.diffusion.noise_schedule import sigmas as training_sigmas
from lambda_split.diffusion.scheduler_settings import SchedulerSettings
from lambda_split.diffusion.solver import Row, Solver, Weights
from lambda_split.diffusion.step_schedule import (
    Doubles,
    check_steps,
    interpolated,
    karras,
    leading,
    linspace,
    log_line,
    trailing,
    training_steps,
    within_training,
)

__all__ = ["euler", "initial_sigma", "input_scale", "predicted_by", "spaced"]


def euler(settings: SchedulerSettings, steps: int) -> Solver:
    """Make the solver.

    Args:
        settings: Of an ``EulerDiscreteScheduler``.
        steps: From 1 to the number of training steps.

    Raises:
        UsageError: the schedule has no room for so many steps.
        SchedulerUnsupported: the betas make no noise schedule.
    """
    timesteps, sigmas = _schedule(settings, steps)
    rows = tuple(
        Row(
            timestep=timestep,
            input_scale=input_scale(sigma),
            predicted=predicted_by(settings.prediction_type, sigma),
            # A straight line towards the predicted original, as far as the next sigma.
            following=Weights(sample=after / sigma, original=1.0 - after / sigma),
        )
        for timestep, sigma, after in zip(timesteps, sigmas, sigmas[1:], strict=False)
    )
    return Solver(rows, initial_sigma(settings, max(sigmas)))


def spaced(settings: SchedulerSettings, steps: int) -> Doubles:
    """float64 (steps,): the timesteps by their spacing, falling, maybe with fractions.

    Raises:
        UsageError: the schedule has no room for so many steps.
    """
    train_steps = settings.num_train_timesteps
    check_steps(steps, train_steps)
    if settings.timestep_spacing == "linspace":
        return _single(linspace(train_steps - 1, steps))
    if settings.timestep_spacing == "leading":
        timesteps = leading(train_steps // steps, steps, settings.steps_offset)
        return within_training(timesteps, settings)
    return trailing(train_steps, train_steps, steps)


def initial_sigma(settings: SchedulerSettings, largest: float) -> float:
    """What the first noise is multiplied by: with ``leading``, room is left for the picture."""
    if settings.timestep_spacing == "leading":
        return math.sqrt(largest * largest + 1.0)
    return largest


def input_scale(sigma: float) -> float:
    """Brings latents of this sigma to variance 1."""
    return 1.0 / math.sqrt(sigma * sigma + 1.0)


def predicted_by(prediction_type: str, sigma: float) -> Weights:
    """The predicted original from latents that are the picture plus ``sigma`` times noise."""
    if prediction_type == "epsilon":
        return Weights(sample=1.0, output=-sigma)
    if prediction_type == "v_prediction":
        scale = input_scale(sigma)
        return Weights(sample=scale * scale, output=-sigma * scale)
    return Weights(output=1.0)


def _schedule(settings: SchedulerSettings, steps: int) -> tuple[Sequence[float], Sequence[float]]:
    """``steps`` timesteps, and one sigma more."""
    known = training_sigmas(settings)
    timesteps = spaced(settings, steps)
    if settings.interpolation_type == "log_linear":
        # Has one sigma too many, so the last step ends at the smallest instead of at the final one.
        sigmas = log_line(float(known[-1]), float(known[0]), steps + 1)
    else:
        sigmas = interpolated(timesteps, known)
    if settings.use_karras_sigmas:
        sigmas = karras(settings, float(sigmas[0]), float(sigmas[-1]), steps)
        timesteps = _single(training_steps(sigmas, known))
    final = float(known[0]) if settings.final_sigmas_type == "sigma_min" else 0.0
    sigmas = _single(np.append(sigmas, final))[: steps + 1]
    if settings.timestep_type == "continuous" and settings.prediction_type == "v_prediction":
        timesteps = _single(log(sigmas[:-1]) * 0.25)
    return timesteps.tolist(), sigmas.tolist()


def _single(values: Doubles) -> Doubles:
    """The same to the precision in which a denoiser is told timesteps."""
    return values.astype(np.float32).astype(np.float64)

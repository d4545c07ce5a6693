"""Euler's method with fresh noise in every step: it goes below the next sigma and comes back up.

Source: ancestral sampling of Song et al., arXiv 2011.13456, appendix F, in the form of Karras et
al., 2206.00364.
"""

from __future__ import annotations

import math

import numpy as np

from lambda_split.diffusion.euler import initial_sigma, input_scale, predicted_by, spaced
from lambda_split.diffusion.noise_schedule import sigmas as training_sigmas
from lambda_split.diffusion.scheduler_settings import SchedulerSettings
from lambda_split.diffusion.solver import Row, Solver, Weights
from lambda_split.diffusion.step_schedule import interpolated

__all__ = ["euler_ancestral"]


def euler_ancestral(settings: SchedulerSettings, steps: int) -> Solver:
    """Make the solver.

    Args:
        settings: Of an ``EulerAncestralDiscreteScheduler``.
        steps: From 1 to the number of training steps.

    Raises:
        UsageError: the schedule has no room for so many steps.
        SchedulerUnsupported: the betas make no noise schedule.
    """
    timesteps = spaced(settings, steps)
    values = interpolated(timesteps, training_sigmas(settings))
    sigmas = np.append(values, 0.0).astype(np.float32).tolist()
    rows = tuple(
        Row(
            timestep=timestep,
            input_scale=input_scale(sigma),
            predicted=predicted_by(settings.prediction_type, sigma),
            following=_following(sigma, after),
        )
        for timestep, sigma, after in zip(timesteps.tolist(), sigmas, sigmas[1:], strict=False)
    )
    return Solver(rows, initial_sigma(settings, max(sigmas)))


def _following(sigma: float, after: float) -> Weights:
    # Down to after**2 / sigma, and up by noise of the variance that is missing to after**2.
    down = after * after / sigma
    up = math.sqrt(max(after * after - down * down, 0.0))
    return Weights(sample=down / sigma, original=1.0 - down / sigma, noise=up)

"""DDIM without added noise (Song et al., arXiv 2010.02502, equation 12 with sigma 0)."""

from __future__ import annotations

import math

import numpy as np

from lambda_split.diffusion.noise_schedule import alphas_cumprod
from lambda_split.diffusion.scheduler_settings import SchedulerSettings
from lambda_split.diffusion.solver import Row, Solver, Weights
from lambda_split.diffusion.step_schedule import (
    Doubles,
    check_steps,
    leading,
    linspace,
    trailing,
    within_training,
)
from lambda_split.errors import SchedulerUnsupported

__all__ = ["ddim", "predicted_from_share"]


def ddim(settings: SchedulerSettings, steps: int) -> Solver:
    """Make the solver.

    Args:
        settings: Of a ``DDIMScheduler``.
        steps: From 1 to the number of training steps.

    Raises:
        UsageError: the schedule has no room for so many steps.
        SchedulerUnsupported: the betas make no noise schedule, or nothing of the picture is left in
            a step whose denoiser predicts the noise.
    """
    timesteps = _timesteps(settings, steps).astype(np.int64).tolist()
    shares = alphas_cumprod(settings).tolist()
    final = 1.0 if settings.set_alpha_to_one else shares[0]
    # A step goes this far down, which need not be where the next one begins: with spacings that do
    # not divide the training steps the two are one apart, as in the library that defines it.
    stride = settings.num_train_timesteps // steps
    rows = []
    for timestep in timesteps:
        after = timestep - stride
        share, share_after = shares[timestep], (shares[after] if after >= 0 else final)
        rows.append(
            Row(
                timestep=float(timestep),
                predicted=predicted_from_share(settings, share),
                following=_following(settings.prediction_type, share, share_after),
            )
        )
    clip_range = settings.clip_sample_range if settings.clip_sample else None
    return Solver(tuple(rows), clip_range=clip_range)


def predicted_from_share(settings: SchedulerSettings, share: float) -> Weights:
    """The predicted original from latents of variance 1 of which ``share`` is the picture's.

    Raises:
        SchedulerUnsupported: the share is 0, and so says nothing of the picture.
    """
    signal, noise = math.sqrt(share), math.sqrt(1.0 - share)
    if settings.prediction_type == "epsilon":
        if signal == 0.0:
            supported = "with prediction_type 'epsilon' nothing is known of the picture at its end"
            raise SchedulerUnsupported("rescale_betas_zero_snr", "True", supported)
        return Weights(sample=1.0 / signal, output=-noise / signal)
    if settings.prediction_type == "v_prediction":
        return Weights(sample=signal, output=-noise)
    return Weights(output=1.0)


def _timesteps(settings: SchedulerSettings, steps: int) -> Doubles:
    train_steps = settings.num_train_timesteps
    check_steps(steps, train_steps)
    if settings.timestep_spacing == "linspace":
        return np.rint(linspace(train_steps - 1, steps))
    if settings.timestep_spacing == "leading":
        timesteps = leading(train_steps // steps, steps, settings.steps_offset)
        return within_training(timesteps, settings)
    return trailing(train_steps, train_steps, steps)


def _following(prediction_type: str, share: float, share_after: float) -> Weights:
    """The predicted original, and the predicted noise, which clipping leaves alone."""
    signal, noise = math.sqrt(share), math.sqrt(1.0 - share)
    original, direction = math.sqrt(share_after), math.sqrt(1.0 - share_after)
    if prediction_type == "epsilon":
        return Weights(original=original, output=direction)
    if prediction_type == "v_prediction":
        return Weights(original=original, output=direction * signal, sample=direction * noise)
    return Weights(original=original, output=-direction * signal / noise, sample=direction / noise)

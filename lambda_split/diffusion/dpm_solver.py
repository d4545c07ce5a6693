"""DPM-Solver++ 2M, a multistep method of second order (Lu et al., arXiv 2211.01095, algorithm 2).

Latents have variance 1 throughout: ``alpha * picture + alpha * sigma * noise`` with
``alpha = 1 / sqrt(sigma**2 + 1)``. The method's time is the logarithm of 1 / sigma.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from lambda_split.diffusion.elementary import log
from lambda_split.diffusion.euler import input_scale as alpha_of
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
    trailing,
    training_steps,
    within_training,
)
from lambda_split.errors import SchedulerUnsupported, UsageError

__all__ = ["dpm_solver"]

# Below so many steps, ``lower_order_final`` makes the last one of first order.
_FEW_STEPS = 15


def dpm_solver(settings: SchedulerSettings, steps: int) -> Solver:
    """Make the solver.

    Args:
        settings: Of a ``DPMSolverMultistepScheduler``.
        steps: From 1 to somewhat below the number of training steps.

    Returns:
        A solver of ``steps`` steps; of fewer only where ``lambda_min_clipped`` leaves out the
        noisiest training steps and the spacing is ``trailing``.

    Raises:
        UsageError: the schedule has no room for so many steps.
        SchedulerUnsupported: the betas, or what is to be left out of them, make no noise schedule.
    """
    timesteps, sigmas = _schedule(settings, steps)
    positive = np.array(sigmas if sigmas[-1] > 0.0 else sigmas[:-1])
    # How far each step goes in the method's time; a last step to 0 goes infinitely far.
    lengths = log(positive[:-1] / positive[1:]).tolist()
    rows = []
    for step, timestep in enumerate(timesteps):
        sigma, after = sigmas[step : step + 2]
        slope = 0.0
        if step > 0 and not _first_order(settings, step, len(timesteps)):
            slope = _slope(settings, lengths[step - 1], lengths[step], after / sigma)
        rows.append(
            Row(
                timestep=float(timestep),
                predicted=_predicted(settings.prediction_type, sigma),
                following=_following(sigma, after, slope),
            )
        )
    return Solver(tuple(rows))


def _first_order(settings: SchedulerSettings, step: int, steps: int) -> bool:
    if settings.solver_order == 1:
        return True
    return step == steps - 1 and (
        settings.euler_at_final
        or settings.final_sigmas_type == "zero"
        or (settings.lower_order_final and steps < _FEW_STEPS)
    )


def _slope(settings: SchedulerSettings, before: float, length: float, decay: float) -> float:
    """What the change of the predicted original counts in a step of second order.

    Args:
        settings: Say how it is extrapolated.
        before: The length of the step before, above 0.
        length: The length of this one.
        decay: ``exp(-length)``.
    """
    if settings.solver_type == "midpoint":
        return 0.5 * (1.0 - decay) * length / before
    return (decay - 1.0 + length) / before


def _following(sigma: float, after: float, slope: float) -> Weights:
    alpha = alpha_of(after)
    decay = after / sigma
    return Weights(
        sample=decay * alpha / alpha_of(sigma),
        original=alpha * (1.0 - decay + slope),
        memory=-alpha * slope,
    )


def _predicted(prediction_type: str, sigma: float) -> Weights:
    alpha = alpha_of(sigma)
    if prediction_type == "epsilon":
        return Weights(sample=1.0 / alpha, output=-sigma)
    if prediction_type == "v_prediction":
        return Weights(sample=alpha, output=-sigma * alpha)
    return Weights(output=1.0)


def _schedule(settings: SchedulerSettings, steps: int) -> tuple[list[int], list[float]]:
    """Timesteps, and one sigma more."""
    known = training_sigmas(settings)
    timesteps = _spaced(settings, steps, _usable_steps(settings, known))
    if settings.use_karras_sigmas:
        values = karras(settings, float(known[-1]), float(known[0]), steps)
        timesteps = training_steps(values, known)
        if settings.beta_schedule != "squaredcos_cap_v2":
            timesteps = np.rint(timesteps)
    else:
        values = interpolated(timesteps, known)
    final = float(known[0]) if settings.final_sigmas_type == "sigma_min" else 0.0
    sigmas = np.append(values, final).astype(np.float32).tolist()
    if not all(sigma > after for sigma, after in itertools.pairwise(sigmas[:-1])):
        raise UsageError(f"{steps} steps are too many for this scheduler: two would be the same")
    return timesteps.astype(np.int64).tolist(), sigmas


def _usable_steps(settings: SchedulerSettings, known: npt.NDArray[np.float32]) -> int:
    """How many training steps have at least the wanted share of picture, from the noiseless end."""
    if settings.lambda_min_clipped is None:
        return settings.num_train_timesteps
    usable = int(np.count_nonzero(-log(known) >= settings.lambda_min_clipped))
    if usable < 2:
        supported = "it leaves no steps of this model's noise schedule"
        raise SchedulerUnsupported(
            "lambda_min_clipped", f"{settings.lambda_min_clipped}", supported
        )
    return usable


def _spaced(settings: SchedulerSettings, steps: int, usable: int) -> Doubles:
    train_steps = settings.num_train_timesteps
    if settings.timestep_spacing == "trailing":
        check_steps(steps, train_steps)
        return trailing(usable, train_steps, steps)
    # The other spacings set one place more and leave out the last, which is noiseless.
    check_steps(steps, usable - 1)
    if settings.timestep_spacing == "linspace":
        return np.rint(linspace(usable - 1, steps + 1))[:-1]
    timesteps = leading(usable // (steps + 1), steps + 1, settings.steps_offset)[:-1]
    return within_training(timesteps, settings)

"""Which training steps a solver visits, and the sigmas there.

Sources: spacings (table 2 of Lin et al., arXiv 2305.08891), sigmas between the given ends (equation
5 of Karras et al., 2206.00364).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lambda_split.diffusion.elementary import exp, log
from lambda_split.diffusion.scheduler_settings import SchedulerSettings
from lambda_split.errors import SchedulerUnsupported, UsageError

__all__ = [
    "check_steps",
    "interpolated",
    "karras",
    "leading",
    "linspace",
    "log_line",
    "trailing",
    "training_steps",
    "within_training",
]

Doubles = npt.NDArray[np.float64]
_Floats = npt.NDArray[np.float32]

_RHO = 7


def check_steps(steps: int, most: int) -> None:
    """Refuse a number of steps that is not from 1 to ``most``, with :class:`UsageError`."""
    if isinstance(steps, bool) or not 1 <= steps <= most:
        raise UsageError(f"this model's scheduler takes 1 to {most} steps, not {steps!r}")


def linspace(last: float, steps: int) -> Doubles:
    """float64 (steps,): evenly from ``last`` down to 0, or only 0 where there is one step."""
    return np.linspace(0.0, last, steps)[::-1]


def leading(ratio: int, steps: int, offset: int) -> Doubles:
    """float64 (steps,): every ``ratio``-th training step, beginning at ``offset``, falling."""
    return np.arange(steps - 1, -1, -1, dtype=np.float64) * ratio + offset


def trailing(start: int, train_steps: int, steps: int) -> Doubles:
    """float64 (n,): from ``start`` down by ``train_steps / steps``, rounded, less 1.

    There are as many as lie above 0 before: ``steps`` where ``start`` is ``train_steps``.
    """
    count = -(-start * steps // train_steps)
    # The stride is the difference of the first two, rounded, as in numpy's arange. It matters where
    # a place falls between two training steps.
    stride = (start - train_steps / steps) - start
    places = np.rint(np.arange(count, dtype=np.float64) * stride + start)
    result: Doubles = np.maximum(places - 1.0, 0.0)
    return result


def within_training(timesteps: Doubles, settings: SchedulerSettings) -> Doubles:
    """The timesteps as they are.

    Raises:
        UsageError: one is no training step, as the offset leaves too little room for so many.
    """
    if timesteps[0] > settings.num_train_timesteps - 1:
        raise UsageError(
            f"{len(timesteps)} steps from an offset of {settings.steps_offset} go beyond the "
            f"{settings.num_train_timesteps} that the model was trained on: take fewer"
        )
    return timesteps


def interpolated(timesteps: Doubles, sigmas: _Floats) -> Doubles:
    """float64 like ``timesteps``: the sigmas at timesteps between training steps, linearly.

    Args:
        timesteps: From 0 to T - 1.
        sigmas: float32 (T,), one for each training step.
    """
    values = sigmas.astype(np.float64)
    low = np.minimum(timesteps.astype(np.int64), len(values) - 2)
    slopes = values[low + 1] - values[low]
    result: Doubles = slopes * (timesteps - low) + values[low]
    return result


def karras(settings: SchedulerSettings, largest: float, smallest: float, steps: int) -> Doubles:
    """Sigmas that are evenly spaced in their seventh roots.

    Args:
        settings: Has other ends, maybe.
        largest: The first sigma, where the settings do not say.
        smallest: The last one, likewise.
        steps: How many.

    Returns:
        float64 (steps,), falling.

    Raises:
        SchedulerUnsupported: the settings have an end on the wrong side of the other one.
    """
    largest = settings.sigma_max or largest
    smallest = settings.sigma_min or smallest
    if smallest > largest:
        supported = f"the sigmas that go down to it begin at {largest:g}"
        raise SchedulerUnsupported("sigma_min", f"{smallest:g}", supported)
    first, last = (exp(log(np.array([largest, smallest])) / _RHO)).tolist()
    roots = first + np.linspace(0.0, 1.0, steps) * (last - first)
    result: Doubles = roots.copy()
    for _ in range(_RHO - 1):  # multiplied out: pow is the C library's
        result *= roots
    return result


def log_line(largest: float, smallest: float, count: int) -> Doubles:
    """float64 (count,): from the largest sigma to the smallest, evenly in their logarithms."""
    first, last = log(np.array([largest, smallest])).tolist()
    return exp(np.linspace(first, last, count))


def training_steps(wanted: Doubles, sigmas: _Floats) -> Doubles:
    """float64 like ``wanted``: the training steps, with fractions, that have these sigmas.

    Interpolated linearly in the logarithm; what lies outside goes to the first or last.

    Args:
        wanted: Sigmas above 0.
        sigmas: float32 (T,), rising, one for each training step.
    """
    # Rounded to float32, as the library that defines the timesteps has them.
    known = log(sigmas).astype(np.float32).astype(np.float64)
    logs = log(wanted)
    low = np.clip(np.searchsorted(known, logs, side="right") - 1, 0, len(known) - 2)
    gap = known[low + 1] - known[low]
    gap[gap == 0.0] = 1.0  # two sigmas that differ, with logarithms that do not any more
    share = np.clip((logs - known[low]) / gap, 0.0, 1.0)
    result: Doubles = (1.0 - share) * low + share * (low + 1)
    return result

"""How much noise each training step has: betas, their product, and sigmas.

Sources: linear betas (Ho et al., arXiv 2006.11239), cosine (Nichol and Dhariwal, 2102.09672), zero
terminal signal-to-noise ratio (Lin et al., 2305.08891), sigmas (Karras et al., 2206.00364).

Values are rounded to float32 wherever diffusers' are: near 1 the product of (1 - beta) has few
digits left below it, and the first sigmas follow from them.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from lambda_split.diffusion.elementary import cos_sin
from lambda_split.diffusion.scheduler_settings import SchedulerSettings
from lambda_split.errors import SchedulerUnsupported

__all__ = ["alphas_cumprod", "sigmas"]

Floats = npt.NDArray[np.float32]

_MAX_BETA = 0.999
# Stands for the last step's zero where sigmas are divided by it: float16's smallest number.
_NEARLY_NO_SIGNAL = np.float32(2.0**-24)


def alphas_cumprod(settings: SchedulerSettings) -> Floats:
    """The share of signal in the variance at each training step.

    Returns:
        float32 (T,), falling; the last is exactly 0 with ``rescale_betas_zero_snr``.

    Raises:
        SchedulerUnsupported: so many and so large betas that no signal is left before the end.
    """
    shares = _cumulative_product(np.float32(1.0) - _betas(settings))
    # Above, the squares of sigmas stay far inside float32 too.
    if shares[-1] < 1e-12:
        raise _unusable(settings, "its betas leave nothing of a picture")
    _check_falling(settings, shares)
    if settings.rescale_betas_zero_snr:
        shares = _without_terminal_signal(settings, shares)
    return shares


def sigmas(settings: SchedulerSettings) -> Floats:
    """The standard deviation of the noise over that of the signal at each training step.

    Returns:
        float32 (T,), rising.

    Raises:
        SchedulerUnsupported: see :func:`alphas_cumprod`.
    """
    shares = alphas_cumprod(settings)
    if settings.rescale_betas_zero_snr:
        shares[-1] = _NEARLY_NO_SIGNAL
        _check_falling(settings, shares)
    ratios: Floats = np.sqrt((np.float32(1.0) - shares) / shares)
    return ratios


def _check_falling(settings: SchedulerSettings, shares: Floats) -> None:
    # Two that are equal would be two steps with no time between them.
    if not (shares[0] < 1.0 and (shares[1:] < shares[:-1]).all()):
        raise _unusable(settings, "every training step must add noise")


def _unusable(settings: SchedulerSettings, reason: str) -> SchedulerUnsupported:
    given = settings.beta_schedule if settings.trained_betas is None else "trained_betas"
    found = f"{given!r} over {settings.num_train_timesteps} steps"
    return SchedulerUnsupported("beta_schedule", found, reason)


def _betas(settings: SchedulerSettings) -> Floats:
    count = settings.num_train_timesteps
    if settings.trained_betas is not None:
        return np.array(settings.trained_betas, dtype=np.float32)
    if settings.beta_schedule == "linear":
        return _line(settings.beta_start, settings.beta_end, count)
    if settings.beta_schedule == "scaled_linear":
        roots = _line(math.sqrt(settings.beta_start), math.sqrt(settings.beta_end), count)
        return roots * roots
    return _cosine_betas(count)


def _line(start: float, end: float, count: int) -> Floats:
    """float32 (count,): evenly from start to end, each half counted from its own end."""
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(count - 1))
    places = np.arange(count, dtype=np.float64)
    rising = np.float64(first) + step * places
    falling = np.float64(last) - step * (count - 1 - places)
    return np.where(places < count // 2, rising, falling).astype(np.float32)


def _cosine_betas(count: int) -> Floats:
    times = np.arange(count + 1, dtype=np.float64) / count
    # The signal's share at time t is the squared cosine of a quarter turn.
    cosines, _ = cos_sin((times + 0.008) / 1.008 / 4.0)
    shares = cosines * cosines
    return np.minimum(1.0 - shares[1:] / shares[:-1], _MAX_BETA).astype(np.float32)


def _without_terminal_signal(settings: SchedulerSettings, shares: Floats) -> Floats:
    roots = np.sqrt(shares)
    first, last = roots[0], roots[-1]
    roots = (roots - last) * (first / (first - last))
    shares = roots * roots
    _check_falling(settings, shares)
    # Through betas and back, for the rounding.
    alphas = np.concatenate([shares[:1], shares[1:] / shares[:-1]])
    betas = np.float32(1.0) - alphas
    shares = _cumulative_product(np.float32(1.0) - betas)
    _check_falling(settings, shares)
    return shares


def _cumulative_product(alphas: Floats) -> Floats:
    # numpy multiplies one after another here, whatever the machine.
    return np.cumprod(alphas, dtype=np.float64).astype(np.float32)

"""Bringing two heads' states to one form, without any text in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["whitening"]

Floats = npt.NDArray[np.float32]


def whitening(states: Sequence[Floats]) -> Callable[[Floats], Floats]:
    """The map that takes states, float32 (T, W) each, to mean 0 and covariance 1."""
    rows = np.concatenate(states).astype(np.float64)  # (N, W)
    mean = rows.mean(0)
    covariance = np.cov((rows - mean).T)
    values, vectors = np.linalg.eigh(covariance)
    # What hardly varies at all is rounding: not to be blown up.
    values = np.maximum(values, 1e-4 * values.mean())
    matrix = vectors / np.sqrt(values) @ vectors.T
    return lambda one: ((one - mean) @ matrix).astype(np.float32)

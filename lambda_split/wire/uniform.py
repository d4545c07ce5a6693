"""Levels spread evenly from a group's least value to its greatest, as in the Λ-Split paper."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["quantize_uniform", "uniform_values"]

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]


def uniform_values(parameters: Floats, codes: Codes, bits: int) -> Floats:
    """What codes stand for: (low · (n − code) + high · code) / n with n = 2ᵇ − 1.

    Computed in binary64 and rounded to float32. Unlike low + code · step this is low and high
    themselves at both ends, cannot leave their range, and has no difference that could overflow.
    The products are exact, so it does not matter whether one of them is fused with the sum.

    Args:
        parameters: float32 (groups, 2), each group's low and high.
        codes: uint8 (groups or 1, values).
        bits: 1 to 8.

    Returns:
        float32 (groups, values).
    """
    lows, highs = np.hsplit(parameters.astype(np.float64), 2)  # (groups, 1) each
    last = (1 << bits) - 1
    upper = codes.astype(np.float64)
    return ((lows * (last - upper) + highs * upper) / last).astype(np.float32)


def quantize_uniform(
    values: Floats, lows: Floats, highs: Floats, bits: int
) -> tuple[Floats, Codes]:
    """The nearest level's code for each value.

    Args:
        values: float32 (groups, values), finite.
        lows: float32 (groups, 1), each group's least value.
        highs: float32 (groups, 1), each group's greatest value.
        bits: 1 to 8.

    Returns:
        Parameters as :func:`uniform_values` wants them, and uint8 codes (groups, values).
    """
    parameters = np.hstack([lows, highs])
    ranges = highs.astype(np.float64) - lows
    per_unit = ((1 << bits) - 1) / np.where(ranges > 0, ranges, np.inf)  # 0 in a group of equals
    scaled = values - lows.astype(np.float64)
    scaled *= per_unit
    return parameters, np.rint(scaled, out=scaled).astype(np.uint8)

"""Logarithm, exponential, sine and cosine that give the same bits on every machine.

C libraries and numpy's vector loops round these differently in the last place. Here they are plain
Taylor series over a reduced argument, of IEEE 754 operations only, written out one after another
(nothing that a compiler could fuse). They are accurate to a few units in the last place of float64,
and short enough to be ported to another language operation by operation.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["cos_sin", "exp", "log"]

Doubles = npt.NDArray[np.float64]

# ln 2 = _LN2_HIGH + _LN2_LOW. The first has 32 bits, so that its product with any exponent of a
# float64 (11 bits) is exact.
_LN2_HIGH = 2977044471 / 2**32
_LN2_LOW = 1.9082149292705877e-10
_LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476
_HALF_PI = 1.5707963267948966

# Coefficients of odd and even series in the square of their argument, the constant first; the first
# term left out is below 2**-54 of the result for every argument that the reductions leave.
_ATANH = tuple(1.0 / (2 * k + 1) for k in range(11))
_SIN = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(9))
_COS = tuple((-1.0) ** k / math.factorial(2 * k) for k in range(9))
_EXP = tuple(1.0 / math.factorial(k) for k in range(15))


def log(values: npt.ArrayLike) -> Doubles:
    """The natural logarithm.

    Args:
        values: float64, finite and above 0, of any shape.

    Returns:
        float64 of that shape.
    """
    mantissa, exponent = np.frexp(np.asarray(values, dtype=np.float64))
    below = mantissa < _SQRT_HALF
    mantissa = np.where(below, mantissa * 2.0, mantissa)  # from sqrt(1/2) to sqrt(2)
    power = (exponent - below).astype(np.float64)
    # ln m = 2 artanh(s) with s = (m - 1) / (m + 1), so |s| < 0.1716
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    series = ratio * 2.0 * _polynomial(_ATANH, ratio * ratio)
    result: Doubles = power * _LN2_HIGH + (series + power * _LN2_LOW)
    return result


def exp(values: npt.ArrayLike) -> Doubles:
    """The exponential.

    Args:
        values: float64 from -700 to 700, of any shape.

    Returns:
        float64 of that shape.
    """
    argument = np.asarray(values, dtype=np.float64)
    power = np.rint(argument / _LN2)
    rest = (argument - power * _LN2_HIGH) - power * _LN2_LOW  # |rest| < 0.35
    result: Doubles = np.ldexp(_polynomial(_EXP, rest), power.astype(np.int32))
    return result


def cos_sin(turns: npt.ArrayLike) -> tuple[Doubles, Doubles]:
    """Cosine and sine of an angle in turns, 1 being a full circle.

    Args:
        turns: float64 from 0 to 1, of any shape.

    Returns:
        cosine and sine, float64 of that shape.
    """
    quarters = np.asarray(turns, dtype=np.float64) * 4.0
    nearest = np.rint(quarters)
    angle = (quarters - nearest) * _HALF_PI  # within an eighth of a turn of 0
    square = angle * angle
    cosine = _polynomial(_COS, square)
    sine = angle * _polynomial(_SIN, square)
    quadrant = nearest.astype(np.int8)
    odd = (quadrant & 1).astype(np.bool_)
    # Quarter turns lead from (c, s) to (-s, c), (-c, -s) and (s, -c).
    first = np.where(odd, sine, cosine)
    second = np.where(odd, cosine, sine)
    # Multiplying by 1 or -1 is exact, and much faster than choosing under a mask.
    first *= 1.0 - (((quadrant + 1) & 2).astype(np.float64))
    second *= 1.0 - ((quadrant & 2).astype(np.float64))
    return first, second


def _polynomial(coefficients: tuple[float, ...], values: Doubles) -> Doubles:
    result = np.full_like(values, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result *= values
        result += coefficient
    return result

"""Numbers that callers give: of Python's kinds or of numpy's, checked once and kept as Python's."""

from __future__ import annotations

import contextlib
import math
import numbers
import operator

from lambda_split.errors import UsageError

__all__ = ["finite_number", "whole_number"]


def whole_number(name: str, value: object, least: int | None = None) -> int:
    """An integer of any kind, but no truth value.

    Args:
        name: What it is called in the error.
        value: What was given.
        least: The least that it may be; None for any.

    Raises:
        UsageError: it is something else.
    """
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        with contextlib.suppress(TypeError):  # an array of several numbers has the method, too
            number = operator.index(value)
            if least is None or number >= least:
                return number
    bound = "" if least is None else f" of at least {least}"
    raise UsageError(f"{name} must be a whole number{bound}, not {value!r}")


def finite_number(name: str, value: object) -> float:
    """A number of any kind, but no truth value, infinity or NaN; arguments as above.

    Raises:
        UsageError: it is something else.
    """
    if not isinstance(value, bool) and isinstance(value, numbers.Real):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise UsageError(f"{name} must be a finite number, not {value!r}")

"""What the fields of a form hold: a browser may send anything for them."""

from __future__ import annotations

from lambda_split.errors import UsageError

__all__ = ["FieldValue", "read_number", "read_seed", "read_text", "read_whole"]

_LONGEST_SEED = 20  # digits of the largest one
FieldValue = str | float | None


def read_number(value: FieldValue, name: str, default: float) -> float:
    """A number; the default where the field is empty.

    Raises:
        UsageError: something else.
    """
    if value is None or value == "":
        return default
    if isinstance(value, str | bool):
        raise UsageError(f"{name} must be a number")
    return value


def read_whole(value: FieldValue, name: str, default: int) -> int:
    """A whole number; the default where the field is empty.

    Raises:
        UsageError: something else.
    """
    number = read_number(value, name, default)
    if not float(number).is_integer():  # which NaN and infinity are not, either
        raise UsageError(f"{name} must be a whole number")
    return int(number)


def read_seed(value: FieldValue) -> int | None:
    """A seed that was typed; None where the field is empty.

    Raises:
        UsageError: something else.
    """
    text = read_text(value).strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_SEED):
        raise UsageError("the seed must be a whole number, or empty")
    return int(text)


def read_text(value: FieldValue) -> str:
    """A text; empty where the field is."""
    return value if isinstance(value, str) else ""

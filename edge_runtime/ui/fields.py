"""Fields of a form, and what they hold: a browser may send anything for them."""

from __future__ import annotations

import gradio as gr

from lambda_split.errors import UsageError

__all__ = [
    "FieldValue",
    "add_number",
    "add_seed",
    "read_number",
    "read_seed",
    "read_text",
    "read_whole",
]

_LONGEST_SEED = 20  # digits of the largest one
FieldValue = str | float | None


def add_number(
    name: str,
    value: float,
    label: str,
    info: str,
    *,
    step: float = 1,
) -> gr.Number:
    """Add a field for a number.

    It has no bounds and no precision of Gradio's: those raise where nobody sees which field it was,
    and round what was typed. What a number may be is checked where it is read.

    Args:
        name: The element's, after ``ls-``.
        value: What it begins with.
        label: What it is.
        info: What is to be known of it.
        step: From one to the next.
    """
    return gr.Number(
        value,
        label=label,
        info=info,
        step=step,
        min_width=120,
        elem_id=f"ls-{name}",
    )


def add_seed(name: str, of: str) -> gr.Textbox:
    """Add a field for a seed: a text, since a number's field shows 0 where it is empty.

    Args:
        name: The element's, after ``ls-``.
        of: What the same seed makes again.
    """
    return gr.Textbox(
        label="Seed",
        info=f"the same seed, the same {of}",
        placeholder="any",
        max_lines=1,
        min_width=120,
        elem_id=f"ls-{name}",
    )


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

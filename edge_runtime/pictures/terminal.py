"""A picture as coloured text, for terminals that show 24-bit colours.

Each character is the upper half of a cell, so that it shows two pixels: one as its own colour, the
one below as its background (ECMA-48, SGR 38 and 48 with 2;R;G;B).
"""

from __future__ import annotations

import os
from typing import IO

import numpy as np

from edge_runtime.pictures.decoder import Pixels

__all__ = ["as_text", "columns_on"]

_UPPER_HALF = "\u2580"
_RESET = "\x1b[0m"
_COLUMNS = 64


def as_text(picture: Pixels, columns: int = _COLUMNS) -> str:
    """A picture as lines of half blocks.

    Args:
        picture: uint8 (height, width, 3), red, green and blue.
        columns: The most characters of a line; a wider picture is shown by fewer pixels.
    """
    step = -(-picture.shape[1] // max(1, columns))
    pixels = picture[::step, ::step]
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, pixels[-1:]])
    # (height, width, 3) -> (height / 2, 2, width, 3): the two pixels of a cell
    cells = pixels.reshape(len(pixels) // 2, 2, *pixels.shape[1:])
    return "".join(f"{''.join(map(_cell, *row))}{_RESET}\n" for row in cells)


def columns_on(stream: IO[str]) -> int:
    """What :func:`as_text` should take for a stream: on a narrow terminal lines would break."""
    try:
        there = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # ValueError: nothing that the system knows
        return _COLUMNS
    return min(there or _COLUMNS, _COLUMNS)  # 0: a terminal that does not know


def _cell(upper: Pixels, lower: Pixels) -> str:
    red, green, blue = map(int, upper)
    red2, green2, blue2 = map(int, lower)
    return f"\x1b[38;2;{red};{green};{blue}m\x1b[48;2;{red2};{green2};{blue2}m{_UPPER_HALF}"

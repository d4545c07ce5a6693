"""Shapes as signed distances, which make smooth edges at any size.

A signed distance is negative inside a shape and positive outside. Half a pixel to either side of
the edge, a pixel is covered in part: that is all the anti-aliasing there is.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Field: TypeAlias = npt.NDArray[np.float32]

#: Inner radius of a star and of a ring, and half the width of a cross's bars, as shares of the
#: outer radius.
_STAR_WAIST: Final = 0.45
_RING_HOLE: Final = 0.55
_CROSS_BAR: Final = 0.32
#: How far the corners of any shape reach, in radii.
_REACH: Final = 1.3


def coverage(
    kind: str, height: int, width: int, middle: tuple[float, float], radius: float
) -> Field:
    """How much of each pixel a shape covers, from 0 to 1.

    Args:
        kind: One of ``KINDS``.
        height: Rows of the picture.
        width: Columns of the picture.
        middle: The shape's middle in pixels, row and column.
        radius: The radius of the circle around the shape, in pixels; a square's and a cross's
            corners reach beyond it a little, so that all shapes look about as large.

    Returns:
        Float32 ``(height, width)``.
    """
    covered = np.zeros((height, width), dtype=np.float32)
    # Only the pixels near the shape are computed.
    reach = _REACH * radius + 1
    top, bottom = (int(np.clip(middle[0] + r, 0, height)) for r in (-reach, reach + 1))
    left, right = (int(np.clip(middle[1] + r, 0, width)) for r in (-reach, reach + 1))
    y = (np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5 - middle[0]) / radius
    x = (np.arange(left, right, dtype=np.float32)[None, :] + 0.5 - middle[1]) / radius
    y, x = np.broadcast_arrays(y, x)
    covered[top:bottom, left:right] = np.clip(0.5 - _distance(kind, y, x) * radius, 0, 1)
    return covered


def _distance(kind: str, y: Field, x: Field) -> Field:
    """Signed distance of points to a shape of radius 1 at the origin; y points down."""
    match kind:
        case "circle":
            return np.hypot(y, x) - np.float32(0.95)
        case "ring":
            middle, half = np.float32((1 + _RING_HOLE) / 2), np.float32((1 - _RING_HOLE) / 2)
            return np.abs(np.hypot(y, x) - middle) - half
        case _:
            return _polygon_distance(_corners(kind), y, x)


@cache
def _corners(kind: str) -> tuple[tuple[float, float], ...]:
    """A polygon's corners as (y, x), in order around it."""
    match kind:
        case "square":
            return _regular(4, 1.15, turn=0.5)
        case "triangle":
            return tuple((y + 0.15, x) for y, x in _regular(3, 1.2))
        case "star":
            outer, inner = _regular(5, 1.15), _regular(5, 1.15 * _STAR_WAIST, turn=0.5)
            return tuple(corner for pair in zip(outer, inner, strict=True) for corner in pair)
        case "cross":
            b = _CROSS_BAR
            return ((-1, -b), (-1, b), (-b, b), (-b, 1), (b, 1), (b, b),
                    (1, b), (1, -b), (b, -b), (b, -1), (-b, -1), (-b, -b))  # fmt: skip
        case _:
            raise ValueError(f"unknown kind of shape {kind!r}")


def _regular(count: int, radius: float, turn: float = 0.0) -> tuple[tuple[float, float], ...]:
    """A regular polygon's corners; the first one is at the top, moved on by ``turn`` corners."""
    angles = [2 * math.pi * (number + turn) / count for number in range(count)]
    return tuple((-radius * math.cos(angle), radius * math.sin(angle)) for angle in angles)


def _polygon_distance(corners: tuple[tuple[float, float], ...], y: Field, x: Field) -> Field:
    """Distance to the nearest edge; negative where a ray to the right crosses an odd number."""
    nearest = np.full_like(y, np.inf)
    inside = np.zeros(y.shape, dtype=bool)
    for (y0, x0), (y1, x1) in zip(corners, corners[1:] + corners[:1], strict=True):
        dy, dx = y1 - y0, x1 - x0
        along = np.clip(((y - y0) * dy + (x - x0) * dx) / (dy * dy + dx * dx), 0, 1)
        nearest = np.minimum(nearest, np.hypot(y - y0 - along * dy, x - x0 - along * dx))
        if dy != 0:
            crosses = (y0 > y) != (y1 > y)
            inside ^= crosses & (x < x0 + (y - y0) * dx / dy)
    return np.where(inside, -nearest, nearest)

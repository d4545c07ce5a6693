"""Drawing a scene as pixels, at any size, whole or in part.

SDXL is told three things about a training picture beside its caption: how large it was before it
was scaled, where it was cut out of, and how large it is (Podell et al. 2023, "SDXL", section 2.2).
Pictures are drawn accordingly: some smaller and scaled up, some larger and cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .scene import Scene, radius_of
from .shapes import Field, coverage
from .world import COLOURS, PLACES

#: Height and width in pixels.
Size: TypeAlias = tuple[int, int]
Pixels: TypeAlias = npt.NDArray[np.uint8]

_SMALLER_SHARE: Final = 0.08
_CUT_SHARE: Final = 0.08
#: How far chance moves a thing (share of the shorter side), a radius (factor) and a channel.
_JITTER: Final = 0.03
_RADIUS_JITTER: Final = 0.08
_COLOUR_JITTER: Final = 6


@dataclass(frozen=True, slots=True)
class View:
    """What SDXL calls the micro-conditioning of a picture.

    Attributes:
        original: Size before scaling.
        crop: Rows above and columns left of the picture that were cut off.
        target: Size of the picture.
    """

    original: Size
    crop: tuple[int, int]
    target: Size

    @property
    def time_ids(self) -> tuple[int, int, int, int, int, int]:
        """The six numbers in the order in which SDXL takes them."""
        return *self.original, *self.crop, *self.target


def plain_view(size: Size) -> View:
    """The view of a picture that was neither scaled nor cut: what one asks for in use."""
    return View(size, (0, 0), size)


def random_view(size: Size, rng: Random) -> View:
    """Mostly the plain view; now and then a scaled one, or one cut out of a larger picture."""
    height, width = size
    chance = rng.random()
    if chance < _SMALLER_SHARE:
        scale = rng.uniform(0.3, 0.8)
        return View((round(height * scale), round(width * scale)), (0, 0), size)
    if chance < _SMALLER_SHARE + _CUT_SHARE:
        top, left = rng.randrange(height // 4), rng.randrange(width // 4)
        return View((height + top, width + left), (top, left), size)
    return plain_view(size)


def draw(scene: Scene, view: View, rng: Random) -> Pixels:
    """Draw a scene.

    Args:
        scene: What to draw. Its places are those of the whole picture, before it is cut.
        view: How large, and which part.
        rng: Moves, scales and tints things a little.

    Returns:
        uint8 ``(height, width, 3)``, sRGB, of the view's target size.
    """
    height, width = view.original
    picture = np.empty((height, width, 3), dtype=np.float32)
    picture[:] = _tinted(scene.background, rng)
    side = min(height, width)
    for thing in scene.things:
        row, column = PLACES[thing.place].middle
        middle = (
            height * row + side * rng.uniform(-_JITTER, _JITTER),
            width * column + side * rng.uniform(-_JITTER, _JITTER),
        )
        radius = radius_of(thing, height, width) * (1 + rng.uniform(-1, 1) * _RADIUS_JITTER)
        # Shape: (height, width) -> (height, width, 1), to mix three channels at once.
        covered = coverage(thing.kind, height, width, middle, radius)[..., None]
        picture += covered * (_tinted(thing.colour, rng) - picture)
    top, left = view.crop
    seen = picture[top:, left:]
    if seen.shape[:2] != view.target:
        seen = _scaled(seen, view.target)
    return np.rint(seen).astype(np.uint8)


def _tinted(colour: str, rng: Random) -> Field:
    tint = [rng.uniform(-_COLOUR_JITTER, _COLOUR_JITTER) for _ in range(3)]
    return np.clip(np.array(COLOURS[colour]) + tint, 0, 255).astype(np.float32)


def _scaled(picture: Field, size: Size) -> Field:
    """Scale with straight lines between pixels, edges repeated; ``(rows, columns, 3)``."""
    for axis, length in enumerate(size):
        count = picture.shape[axis]
        position = np.clip((np.arange(length) + 0.5) * count / length - 0.5, 0, count - 1)
        before = np.minimum(position.astype(int), count - 2)
        # Shape: one weight a row (or column), spread over the other axes.
        shape = [-1 if other == axis else 1 for other in range(picture.ndim)]
        weight = (position - before).astype(np.float32).reshape(shape)
        near = np.take(picture, before, axis=axis)
        picture = near + weight * (np.take(picture, before + 1, axis=axis) - near)
    return picture

"""Does a picture show what its caption says? Told from its pixels alone.

Every pixel gets the name of the nearest colour. The background is what most of the border is
named. A thing is looked for among the pixels of its colour: there must be enough of them, their
middle must be nearest to its place, and of all shapes drawn there with as many pixels, its own
must fit best. Colours that nobody asked for must not cover more than an edge does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .drawing import Pixels
from .scene import Scene
from .shapes import coverage
from .world import COLOURS, KINDS, PLACES, RADII

Mask: TypeAlias = npt.NDArray[np.bool_]

_NAMES: Final = tuple(COLOURS)
#: A thing has at least this share of the pixels of the smallest shape.
_LEAST: Final = 0.4
#: Pixels inside patches of a colour that nobody asked for, as a share of the picture.
_MOST_STRAY: Final = 0.006


@dataclass(frozen=True, slots=True)
class Verdict:
    """What of a scene is right; ``all_right`` needs everything.

    Attributes:
        background: The background has its colour.
        colours: Every thing's colour is there.
        places: And in its place.
        kinds: And in its shape.
        nothing_else: There is nothing that was not asked for.
    """

    background: bool
    colours: bool
    places: bool
    kinds: bool
    nothing_else: bool

    @property
    def all_right(self) -> bool:
        """Whether the picture shows the scene."""
        return self.background and self.colours and self.places and self.kinds and self.nothing_else


def judge(picture: Pixels, scene: Scene) -> Verdict:
    """Compare a picture with what it should show.

    Args:
        picture: uint8 ``(height, width, 3)``.
        scene: What it should show; its sizes are not looked at.
    """
    named = _named_pixels(picture)
    border = np.concatenate([named[0], named[-1], named[:, 0], named[:, -1]])
    background = int(np.bincount(border, minlength=len(_NAMES)).argmax())
    masks = [_without_edges(named == _NAMES.index(thing.colour)) for thing in scene.things]
    found = [_is_there(mask) for mask in masks]
    placed = [
        there and _nearest_place(mask) == thing.place
        for there, mask, thing in zip(found, masks, scene.things, strict=True)
    ]
    shaped = [
        there and _best_kind(mask) == thing.kind
        for there, mask, thing in zip(found, masks, scene.things, strict=True)
    ]
    wanted = {scene.background, *(thing.colour for thing in scene.things)}
    stray = sum(
        int(_inside(named == number).sum())
        for number, name in enumerate(_NAMES)
        if name not in wanted
    )
    return Verdict(
        background=_NAMES[background] == scene.background,
        colours=all(found),
        places=all(placed),
        kinds=all(shaped),
        nothing_else=stray <= _MOST_STRAY * named.size,
    )


def _named_pixels(picture: Pixels) -> npt.NDArray[np.intp]:
    """The number of the nearest colour for each pixel, ``(height, width)``."""
    palette = np.array(list(COLOURS.values()), dtype=np.int32)
    # Shape: (height, width, 1, 3) against (colours, 3).
    distance = ((picture[:, :, None, :].astype(np.int32) - palette) ** 2).sum(axis=-1)
    nearest: npt.NDArray[np.intp] = distance.argmin(axis=-1)
    return nearest


def _is_there(mask: Mask) -> bool:
    smallest = RADII["small"] * min(mask.shape)
    height, width = mask.shape
    areas = [coverage(k, height, width, _middle(mask.shape), smallest).sum() for k in KINDS]
    return bool(mask.sum() >= _LEAST * min(areas))


def _middle(shape: tuple[int, ...]) -> tuple[float, float]:
    return shape[0] / 2, shape[1] / 2


def _nearest_place(mask: Mask) -> str:
    rows, columns = np.nonzero(mask)
    row, column = (rows.mean() + 0.5) / mask.shape[0], (columns.mean() + 0.5) / mask.shape[1]

    def distance(name: str) -> float:
        middle = PLACES[name].middle
        return float((middle[0] - row) ** 2 + (middle[1] - column) ** 2)

    return min(PLACES, key=distance)


def _best_kind(mask: Mask) -> str:
    rows, columns = np.nonzero(mask)
    middle = float(rows.mean()) + 0.5, float(columns.mean()) + 0.5

    def overlap(kind: str) -> float:
        height, width = mask.shape
        # A triangle's middle is not that of its pixels; the drawn shape is moved accordingly.
        radius = 10.0
        drawn = coverage(kind, height, width, _middle(mask.shape), radius)
        radius *= float(np.sqrt(mask.sum() / drawn.sum()))
        ys, xs = np.mgrid[0:height, 0:width]
        off = [
            (float((drawn * axis).sum() / drawn.sum()) + 0.5 - side / 2) * radius / 10
            for axis, side in ((ys, height), (xs, width))
        ]
        drawn = coverage(kind, height, width, (middle[0] - off[0], middle[1] - off[1]), radius)
        both = np.minimum(drawn, mask).sum()
        return float(both / np.maximum(drawn, mask).sum())

    return max(KINDS, key=overlap)


def _without_edges(mask: Mask) -> Mask:
    """The patches of a mask: an edge between two other colours may look like a third one."""
    near = _inside(mask)
    for _ in range(2):
        grown = np.pad(near, 1)
        near = (
            grown[1:-1, 1:-1]
            | grown[:-2, 1:-1]
            | grown[2:, 1:-1]
            | grown[1:-1, :-2]
            | grown[1:-1, 2:]
        )
    return mask & near


def _inside(mask: Mask) -> Mask:
    """The pixels whose four neighbours are in the mask too: edges alone have none."""
    inner = np.zeros_like(mask)
    inner[1:-1, 1:-1] = (
        mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    )
    return inner

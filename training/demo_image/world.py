"""What pictures are of: colours, shapes, places and sizes, with the words for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Word and sRGB value.
COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (214, 40, 40),
    "orange": (247, 140, 20),
    "yellow": (250, 222, 60),
    "green": (40, 160, 70),
    "blue": (40, 80, 210),
    "purple": (140, 50, 170),
    "white": (248, 248, 248),
    "black": (20, 20, 20),
    "grey": (150, 150, 150),
}
#: Colours of shapes, and of what is behind them.
SHAPE_COLOURS: Final = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
BACKGROUNDS: Final = ("white", "black", "grey", "yellow", "green", "blue")

KINDS: Final = ("circle", "square", "triangle", "star", "ring", "cross")


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a picture: row and column of a grid of three by three, and how one says it."""

    row: int
    column: int
    phrase: str

    @property
    def middle(self) -> tuple[float, float]:
        """The place's middle as shares of height and width."""
        return (self.row + 1) / 4, (self.column + 1) / 4

    def apart_from(self, other: Place) -> bool:
        """Whether large shapes in both places do not touch."""
        return max(abs(self.row - other.row), abs(self.column - other.column)) == 2


PLACES: Final[dict[str, Place]] = {
    "top left": Place(0, 0, "in the top left corner"),
    "top": Place(0, 1, "at the top"),
    "top right": Place(0, 2, "in the top right corner"),
    "left": Place(1, 0, "on the left"),
    "centre": Place(1, 1, "in the centre"),
    "right": Place(1, 2, "on the right"),
    "bottom left": Place(2, 0, "in the bottom left corner"),
    "bottom": Place(2, 1, "at the bottom"),
    "bottom right": Place(2, 2, "in the bottom right corner"),
}

#: A shape's radius as a share of the picture's shorter side. The middle size has no word.
RADII: Final[dict[str, float]] = {"small": 0.115, "": 0.16, "large": 0.205}

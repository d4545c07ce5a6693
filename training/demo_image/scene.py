"""Scenes: what is where, drawn at random, with things held out of training.

Which things are held out is decided by a hash of their words, so that it does not depend on any
seed. Training never shows a held-out thing; whoever draws one right composes it from its words.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from random import Random
from typing import Final, Literal, TypeAlias

from .world import BACKGROUNDS, KINDS, PLACES, RADII, SHAPE_COLOURS

Split: TypeAlias = Literal["train", "seen", "unseen"]
SPLITS: Final[tuple[Split, ...]] = ("train", "seen", "unseen")

#: Of a hundred things, how many are held out.
_HELD_OUT: Final = 6
_TWO_THINGS_SHARE: Final = 0.65
#: Half of the things have a size that is not named.
_SIZES: Final = ("small", "", "", "large")


@dataclass(frozen=True, slots=True)
class Thing:
    """A shape with its colour, its place and its size (the words; "" is the middle size)."""

    kind: str
    colour: str
    place: str
    size: str = ""

    @property
    def held_out(self) -> bool:
        """Whether training never shows this colour, shape and place together."""
        words = f"{self.colour} {self.kind} {self.place}"
        return int.from_bytes(hashlib.sha256(words.encode()).digest()[:4]) % 100 < _HELD_OUT


@dataclass(frozen=True, slots=True)
class Scene:
    """One or two things in front of a background."""

    things: tuple[Thing, ...]
    background: str

    @property
    def held_out(self) -> bool:
        """Whether any of its things is held out."""
        return any(thing.held_out for thing in self.things)


def random_scene(split: Split, rng: Random) -> Scene:
    """Draw a scene.

    Args:
        split: ``train`` and ``seen`` have no held-out thing (they differ by their seeds alone),
            ``unseen`` has at least one.
        rng: Where chance comes from.

    Returns:
        A scene whose things are apart from one another, in different colours.
    """
    while True:
        scene = _any_scene(rng)
        if scene.held_out == (split == "unseen"):
            return scene


def _any_scene(rng: Random) -> Scene:
    background = rng.choice(BACKGROUNDS)
    count = 2 if rng.random() < _TWO_THINGS_SHARE else 1
    colours = rng.sample([colour for colour in SHAPE_COLOURS if colour != background], count)
    places = [rng.choice(list(PLACES))]
    if count == 2:
        places[0] = rng.choice([name for name in PLACES if name != "centre"])
        first = PLACES[places[0]]
        places.append(rng.choice([n for n, place in PLACES.items() if place.apart_from(first)]))
    things = tuple(
        Thing(rng.choice(KINDS), colour, place, rng.choice(_SIZES))
        for colour, place in zip(colours, places, strict=True)
    )
    return Scene(things, background)


def radius_of(thing: Thing, height: int, width: int) -> float:
    """A thing's radius in pixels, before chance changes it a little."""
    return RADII[thing.size] * min(height, width)

"""Captions: what one can say of a scene."""

from __future__ import annotations

from random import Random
from typing import Final

from .scene import Scene, Thing
from .world import PLACES

#: Places of two things that a single word tells: the first thing's, the second's, the word.
_RELATIONS: Final = {
    ("top", "bottom"): "above",
    ("bottom", "top"): "below",
    ("left", "right"): "left of",
    ("right", "left"): "right of",
}
#: How often something is left unsaid, or said in another way.
_NO_PLACE: Final = 0.1
_NO_BACKGROUND: Final = 0.08
_RELATION: Final = 0.5


def caption(scene: Scene) -> str:
    """The full caption of a scene, in its plain form."""
    things = " and ".join(_described(thing) for thing in scene.things)
    return f"{things}, {_behind(scene)}"


def random_caption(scene: Scene, rng: Random) -> str:
    """One of the captions of a scene: in either order, with relations, some things unsaid."""
    things = list(scene.things)
    rng.shuffle(things)
    relation = _RELATIONS.get((things[0].place, things[-1].place))
    if relation and rng.random() < _RELATION:
        words = f"{_named(things[0])} {relation} {_named(things[1])}"
    elif len(things) == 1 and rng.random() < _NO_PLACE:
        words = _named(things[0])
    else:
        words = " and ".join(_described(thing) for thing in things)
    chance = rng.random()
    if chance < _NO_BACKGROUND:
        return words
    if chance < 0.3:
        return f"{words} on {scene.background}"
    return f"{words}, {_behind(scene)}"


def _behind(scene: Scene) -> str:
    return f"on {_with_article(scene.background)} background"


def _described(thing: Thing) -> str:
    return f"{_named(thing)} {PLACES[thing.place].phrase}"


def _named(thing: Thing) -> str:
    return _with_article(" ".join(word for word in (thing.size, thing.colour, thing.kind) if word))


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"

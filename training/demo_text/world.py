"""The invented world: who and what there is in Willow Vale, and the facts about them.

These tables are the only place where a fact is written down. Stories and answers are both
made from them, so the corpus never contradicts itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Pronoun = Literal["she", "he"]

#: Sizes from small to large; the order decides which of two animals is bigger.
SIZES: Final = ("tiny", "small", "large", "huge")
STORYTELLER: Final = "Lambda"
WORLD: Final = "Willow Vale"


@dataclass(frozen=True, slots=True)
class Animal:
    """One inhabitant: there is exactly one of each kind, with a name and a home."""

    kind: str
    name: str
    pronoun: Pronoun
    home: str
    food: str
    colour: str
    size: str
    talent: str
    plural: str = ""

    @property
    def kinds(self) -> str:
        """The plural of the kind, as in "what do foxes eat?"."""
        return self.plural or f"{self.kind}s"


@dataclass(frozen=True, slots=True)
class Place:
    """One place: ``at`` is its preposition, ``spots`` are where small things lie there."""

    name: str
    at: str
    look: str
    grows: str
    side: str
    spots: tuple[str, str, str]
    #: Stories that happen here happen in this season.
    season: str

    @property
    def where(self) -> str:
        """The place with its preposition, as in "she lived *in the Amber Wood*"."""
        return f"{self.at} {self.name}"


ANIMALS: Final[tuple[Animal, ...]] = (
    Animal("fox", "Fenna", "she", "the Amber Wood", "blackberries", "red", "small", "run", "foxes"),
    Animal("otter", "Ollo", "he", "the Silver River", "fish", "brown", "small", "swim"),
    Animal("owl", "Orla", "she", "the Hollow Oak", "moths", "white", "small", "see in the dark"),
    Animal("badger", "Bram", "he", "the Moss Cave", "mushrooms", "grey", "large", "dig"),
    Animal("mouse", "Mimi", "she", "the Old Mill", "grain", "grey", "tiny", "hide", "mice"),
    Animal("hare", "Hob", "he", "the Moon Meadow", "clover", "brown", "small", "jump"),
    Animal("hedgehog", "Hilda", "she", "the Thorn Garden", "beetles", "brown", "tiny", "roll up"),
    Animal("heron", "Silva", "she", "the Reed Pond", "fish", "blue", "large", "stand still"),
    Animal("frog", "Figo", "he", "the Reed Pond", "flies", "green", "tiny", "sing"),
    Animal("squirrel", "Suri", "she", "the Hollow Oak", "nuts", "red", "tiny", "climb"),
    Animal("mole", "Dorn", "he", "the Thorn Garden", "worms", "black", "tiny", "dig"),
    Animal("deer", "Dalia", "she", "the Amber Wood", "leaves", "golden", "large", "run", "deer"),
    Animal("crow", "Kesh", "he", "the Stone Tower", "seeds", "black", "small", "fly"),
    Animal("goat", "Garo", "he", "the Snow Peak", "grass", "white", "large", "climb"),
    Animal("bear", "Bruna", "she", "the Moss Cave", "honey", "brown", "huge", "carry heavy stones"),
    Animal("duck", "Dilly", "she", "the Quiet Lake", "water plants", "yellow", "small", "swim"),
    Animal("turtle", "Tolo", "he", "the Salt Shore", "seaweed", "green", "small", "wait"),
    Animal("horse", "Hanno", "he", "the Apple Yard", "apples", "black", "huge", "run"),
)

PLACES: Final[tuple[Place, ...]] = (
    Place(
        "the Amber Wood",
        "in",
        "a forest of tall golden trees",
        "blackberries",
        "east",
        ("under a fern", "behind a tall tree", "between the roots"),
        "autumn",
    ),
    Place(
        "the Silver River",
        "by",
        "a cold and bright river",
        "soft reeds",
        "west",
        ("under a flat stone", "in the soft sand", "between the reeds"),
        "spring",
    ),
    Place(
        "the Hollow Oak",
        "at",
        "an oak tree with a big hole in it",
        "acorns",
        "east",
        ("inside the hollow trunk", "under the fallen leaves", "on a low branch"),
        "autumn",
    ),
    Place(
        "the Moss Cave",
        "in",
        "a dark cave full of green moss",
        "mushrooms",
        "north",
        ("behind a grey rock", "on the soft moss", "in a dark corner"),
        "winter",
    ),
    Place(
        "the Old Mill",
        "at",
        "a mill with a wheel that still turns",
        "grain",
        "south",
        ("behind the wheel", "under a sack of grain", "beside the stairs"),
        "summer",
    ),
    Place(
        "the Moon Meadow",
        "in",
        "a wide meadow that shines at night",
        "clover",
        "south",
        ("in the high grass", "beside a white flower", "under a clover leaf"),
        "summer",
    ),
    Place(
        "the Thorn Garden",
        "in",
        "a wild garden with a broken wall",
        "roses",
        "south",
        ("under a rose bush", "beside the broken wall", "behind the gate"),
        "summer",
    ),
    Place(
        "the Reed Pond",
        "by",
        "a small green pond",
        "water lilies",
        "west",
        ("on a lily leaf", "in the wet mud", "beside a floating log"),
        "spring",
    ),
    Place(
        "the Stone Tower",
        "at",
        "a tower that nobody has used for years",
        "ivy",
        "north",
        ("on the top step", "behind the ivy", "beside the old door"),
        "winter",
    ),
    Place(
        "the Snow Peak",
        "on",
        "a high mountain with snow on it",
        "small blue flowers",
        "north",
        ("in the deep snow", "beside a frozen stream", "under a cold rock"),
        "winter",
    ),
    Place(
        "the Quiet Lake",
        "by",
        "a deep and still lake",
        "water plants",
        "west",
        ("under the wooden pier", "on the pebbles", "beside an old post"),
        "spring",
    ),
    Place(
        "the Salt Shore",
        "on",
        "a long beach by the sea",
        "seaweed",
        "west",
        ("in the warm sand", "under the seaweed", "beside a rock pool"),
        "summer",
    ),
    Place(
        "the Apple Yard",
        "in",
        "a yard full of apple trees",
        "apples",
        "south",
        ("under an apple tree", "beside the well", "behind the fence"),
        "autumn",
    ),
    Place(
        "the Windy Hill",
        "on",
        "a round hill where the wind never sleeps",
        "thin grass",
        "east",
        ("beside the lonely bush", "in a small hollow", "on a warm stone"),
        "spring",
    ),
)

#: Names that a person may ask for in place of the inhabitants' own, by pronoun.
EXTRA_NAMES: Final[dict[Pronoun, tuple[str, ...]]] = {
    "she": ("Luna", "Pippa", "Wren", "Nela", "Ruby", "Tilda", "Ivy", "Zora", "Mara", "Elsie"),
    "he": ("Pip", "Bodo", "Milo", "Rufus", "Anton", "Jory", "Felix", "Tam", "Otis", "Basil"),
}

"""A story: who, what and where is drawn first, then it is told from a plot's beats."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from random import Random
from typing import Final

from .grammar import alternatives, expand, with_article
from .plot import Ask, Beat, Plot
from .plots import OPENING, PLOTS
from .things import LOOKS, THINGS, Thing
from .world import ANIMALS, EXTRA_NAMES, PLACES, Animal, Place, Pronoun

#: Of a hundred (animal, thing, place) combinations this many are kept out of training.
HELD_OUT_PERCENT: Final = 6
#: Chance that an optional beat is told.
_OPTIONAL_BEAT: Final = 0.7
#: Chance of the thing's usual plot, of its usual place, and of the hero's best friend.
_HABIT: Final = 0.5

_SOUNDS: Final = ("a soft tapping", "a loud bump", "a low humming", "a funny squeak")
_FIXES: Final = ("a drop of glue", "a piece of string", "a new nail", "a bit of wax")
_TRAPS: Final = ("a ditch", "a puddle of mud", "a hole", "a cold stream")
_WEATHERS: Final = ("it began to rain", "it began to snow", "a strong wind blew", "fog came up")
_SKIES: Final = ("the sun was shining", "a soft wind was blowing", "the sky was blue")
_PRONOUN_FORMS: Final[dict[Pronoun, tuple[str, str, str]]] = {
    "she": ("she", "her", "her"),
    "he": ("he", "him", "his"),
}


@dataclass(frozen=True, slots=True)
class Combination:
    """The three words by which held-out stories are chosen."""

    animal: str
    thing: str
    place: str

    @property
    def held_out(self) -> bool:
        """Whether no training document may tell this combination.

        A hash decides, not a list, so that the split stays the same when the world grows.
        """
        digest = sha256(f"{self.animal}/{self.thing}/{self.place}".encode()).digest()
        return int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT


@dataclass(frozen=True)
class Question:
    """A question about one told story, its answer, and the template that both are from."""

    question: str
    answer: str
    ask: Ask


@dataclass(frozen=True)
class Cast:
    """Everything that is drawn before a story is told."""

    hero: Animal
    name: str
    pronoun: Pronoun
    friend: Animal
    thing: Thing
    place: Place
    other_place: Place
    plot: Plot
    details: tuple[tuple[str, str], ...]

    @property
    def combination(self) -> Combination:
        """The words by which this story is in training or held out."""
        return Combination(self.hero.kind, self.thing.noun, self.place.name)

    @property
    def custom_name(self) -> bool:
        """Whether the hero bears another name than the inhabitant of that kind."""
        return self.name != self.hero.name

    @cached_property
    def fields(self) -> dict[str, str]:
        """The values of a plot's fields (see ``plots``)."""
        subject, object_, possessive = _PRONOUN_FORMS[self.pronoun]
        f_subject, f_object, f_possessive = _PRONOUN_FORMS[self.friend.pronoun]
        drawn = dict(self.details)
        home = next(place for place in PLACES if place.name == self.hero.home)
        return drawn | {
            "hero": self.hero.kind, "Hero": self.name, "ahero": with_article(self.hero.kind),
            "acolourhero": with_article(f"{self.hero.colour} {self.hero.kind}"),
            "home": home.where, "food": self.hero.food,
            "s": subject, "S": subject.capitalize(), "o": object_,
            "p": possessive, "P": possessive.capitalize(),
            "friend": self.friend.kind, "Friend": self.friend.name, "ffood": self.friend.food,
            "fs": f_subject, "fS": f_subject.capitalize(), "fo": f_object,
            "fp": f_possessive, "fP": f_possessive.capitalize(),
            "thing": self.thing.noun, "athing": with_article(f"{drawn['how']} {self.thing.noun}"),
            "purpose": self.thing.purpose, "need": self.thing.need,
            "deed": self.thing.deed, "outcome": self.thing.outcome,
            "place": self.place.name, "where": self.place.where, "look": self.place.look,
            "place2": self.other_place.name, "where2": self.other_place.where,
        }  # fmt: skip


@dataclass(frozen=True)
class Story:
    """A told story with the questions that its text answers."""

    cast: Cast
    text: str
    questions: tuple[Question, ...]
    summary: str
    moral: str


def draw_cast(
    rng: Random,
    *,
    held_out: bool = False,
    hero: Animal | None = None,
    custom_name: bool = False,
) -> Cast:
    """Draw who, what and where a story is about.

    Args:
        rng: Source of the choices.
        held_out: Draw only combinations that training never sees; otherwise only the others.
        hero: The main animal, when it is already known.
        custom_name: Give the hero a name that a person might have asked for.

    Returns:
        A cast whose combination is on the wanted side of the split.
    """
    main = hero or rng.choice(ANIMALS)
    while True:
        plot, thing, place = rng.choice(PLOTS), rng.choice(THINGS), rng.choice(PLACES)
        # Without habits the most likely story would be the same one whatever is asked for.
        if rng.random() < _HABIT:
            plot = usual_plot(thing)
        if rng.random() < _HABIT:
            place = PLACES[THINGS.index(thing) % len(PLACES)]
        if plot.things and thing.noun not in plot.things:
            continue
        if plot.leaves_home and place.name == main.home:
            continue
        if Combination(main.kind, thing.noun, place.name).held_out == held_out:
            break
    pronoun: Pronoun = rng.choice(("she", "he")) if custom_name else main.pronoun
    season = place.season
    sky = f"{season} day"
    details = {
        "how": rng.choice(LOOKS), "season": season, "aseason": with_article(season),
        "One": f"[One {sky}|On {with_article(sky)}]", "day": with_article(sky),
        "spot": rng.choice(place.spots), "feeling": plot.feeling,
        "worry": plot.worry, "sound": rng.choice(_SOUNDS), "fix": rng.choice(_FIXES),
        "trap": rng.choice(_TRAPS), "weather": rng.choice(_WEATHERS),
        "weather2": rng.choice(_SKIES),
    }  # fmt: skip
    details["One"] = expand(details["One"], rng, {})
    return Cast(
        hero=main,
        name=rng.choice(EXTRA_NAMES[pronoun]) if custom_name else main.name,
        pronoun=pronoun,
        friend=_draw_friend(rng, main),
        thing=thing,
        place=place,
        other_place=rng.choice([other for other in PLACES if other != place]),
        plot=plot,
        details=tuple(details.items()),
    )


def usual_plot(thing: Thing) -> Plot:
    """The plot that stories about a thing mostly have."""
    return next(plot for plot in PLOTS if thing.noun in plot.usual_things)


def _draw_friend(rng: Random, main: Animal) -> Animal:
    if rng.random() < _HABIT:
        return ANIMALS[(ANIMALS.index(main) + 7) % len(ANIMALS)]
    return rng.choice([animal for animal in ANIMALS if animal != main])


def tell(cast: Cast, rng: Random, *, short: bool = False) -> Story:
    """Tell a story.

    Args:
        cast: Who and what it is about.
        rng: Source of the wording and of which optional beats are told.
        short: Tell the core beats only.

    Returns:
        The text and the questions that it answers.
    """
    told = [
        beat
        for beat in (OPENING, *cast.plot.beats)
        if beat.core or (not short and rng.random() < _OPTIONAL_BEAT)
    ]
    text = " ".join(expand(beat.text, rng, cast.fields) for beat in told)
    return Story(
        cast=cast,
        text=text,
        questions=_questions(told, cast, rng),
        summary=expand(cast.plot.summary, rng, cast.fields),
        moral=cast.plot.moral,
    )


def _questions(told: list[Beat], cast: Cast, rng: Random) -> tuple[Question, ...]:
    """Write out what the told beats make answerable."""
    asks = [ask for beat in told for ask in beat.asks]
    return tuple(_word(ask, cast, rng) for ask in asks)


def _word(ask: Ask, cast: Cast, rng: Random) -> Question:
    """Choose how a question and its answer name the hero and the friend."""
    hero, friend = cast.hero.kind, cast.friend
    subject = cast.pronoun
    # Most people ask with "she" or "the fox", and the plainest answer begins with the pronoun.
    asked = rng.choice((subject, subject, f"the {hero}", f"the {hero}", cast.name))
    answered = rng.choice((subject.capitalize(), subject.capitalize(), cast.name))
    friend_asked = rng.choice((f"the {friend.kind}", friend.name))
    fields = cast.fields | {
        "hq": asked,
        "ha": answered,
        "fq": friend_asked,
        "fa": friend.name,
    }
    return Question(expand(ask.question, rng, fields), expand(ask.answer, rng, fields), ask)


def right_answers(ask: Ask, cast: Cast) -> frozenset[str]:
    """All wordings of an answer that the corpus may use."""
    friend = cast.friend
    subjects = (cast.pronoun.capitalize(), cast.name)
    friends_asked = (f"the {friend.kind}", friend.name)
    fixed = Random(0)  # No choice is left to make once the alternatives are written out.
    return frozenset(
        expand(template, fixed, cast.fields | {"ha": subject, "fq": asked, "fa": friend.name})
        for template in alternatives(ask.answer)
        for subject in subjects
        for asked in friends_asked
    )

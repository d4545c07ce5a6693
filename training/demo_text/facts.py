"""Questions about the facts of the world, and their answers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from .grammar import expand, join_list, with_article
from .messages import Exchange
from .things import THINGS
from .world import ANIMALS, PLACES, SIZES, WORLD, Animal, Place

_COLOURS: Final = sorted({animal.colour for animal in ANIMALS})

#: A fact about an animal: how one asks with a noun, how one asks with a pronoun, the answer.
#: ``X`` is the subject, written as the dialogue needs it.
_ANIMAL_FACTS: Final = {
    "home": (
        (
            "[Where does {name} live?|Where do {kinds} live?|Where is the home of {name}?"
            "|Where can I find {name}?]"
        ),
        "[Where does {s} live?|And where does {s} live?|Where is {p} home?]",
        "{X} lives {home}.",
    ),
    "food": (
        (
            "[What does {name} eat?|What do {kinds} eat?|What is the food of {name}?"
            "|What does {name} like to eat?]"
        ),
        "[What does {s} eat?|And what does {s} eat?|What does {s} like to eat?]",
        "{X} eats {food}.",
    ),
    "colour": (
        "[What colour is {name}?|Which colour does {name} have?|What colour are {kinds}?]",
        "[What colour is {s}?|And what colour is {s}?]",
        "{X} is {colour}.",
    ),
    "size": (
        "[How big is {name}?|How large is {name}?|Is {name} big or small?]",
        "[How big is {s}?|And how big is {s}?|Is {s} big or small?]",
        "{X} is {size}.",
    ),
    "talent": (
        "[What can {name} do well?|What is {name} good at?|What can {name} do?]",
        "[What can {s} do well?|What is {s} good at?]",
        "{X} can {talent} very well.",
    ),
}


def animal_fields(animal: Animal) -> dict[str, str]:
    """The field values with which texts about one animal are written."""
    home = next(place for place in PLACES if place.name == animal.home)
    return {
        "kind": animal.kind, "kinds": animal.kinds, "Name": animal.name, "home": home.where,
        "food": animal.food, "colour": animal.colour, "size": animal.size,
        "talent": animal.talent, "s": animal.pronoun, "S": animal.pronoun.capitalize(),
        "p": "her" if animal.pronoun == "she" else "his", "akind": with_article(animal.kind),
    }  # fmt: skip


def animal_chain(rng: Random, animal: Animal, turns: int) -> list[Exchange]:
    """Ask some facts about one animal; later questions only say "she" or "he"."""
    topics = rng.sample(sorted(_ANIMAL_FACTS), k=min(turns, len(_ANIMAL_FACTS)))
    fields = animal_fields(animal)
    chain = []
    for index, topic in enumerate(topics):
        by_noun, by_pronoun, answer = _ANIMAL_FACTS[topic]
        subject = f"{animal.name} the {animal.kind}" if index == 0 else fields["S"]
        named = fields | {"name": rng.choice((f"the {animal.kind}", animal.name)), "X": subject}
        question = by_noun if index == 0 else by_pronoun
        chain.append(Exchange(expand(question, rng, named), expand(answer, rng, named)))
    return chain


def portrait(rng: Random, animal: Animal) -> str:
    """All facts about one animal in a few sentences."""
    return expand(
        "{Name} the {kind} is {size} and {colour}. {S} lives {home} and eats {food}."
        " {S} can {talent} very well.",
        rng,
        animal_fields(animal),
    )


def about_animal(rng: Random, animal: Animal) -> Exchange:
    """A request to hear about an animal."""
    question = expand(
        "[Tell me about|What do you know about|Tell me something about|Can you describe]"
        " [the {kind}|{Name}|{Name} the {kind}|{kinds}]",
        rng,
        animal_fields(animal),
    )
    mark = "." if question.startswith("Tell") else "?"
    return Exchange(question + mark, portrait(rng, animal))


def name_or_kind(rng: Random, animal: Animal) -> Exchange:
    """Ask for the name of a kind or for the kind behind a name."""
    fields = animal_fields(animal)
    if rng.random() < 0.5:
        question = "[What is the name of the {kind}?|What is the {kind} called?]"
        return Exchange(
            expand(question, rng, fields), f"The {animal.kind} is called {animal.name}."
        )
    question = "[Who is {Name}?|Which animal is {Name}?|What kind of animal is {Name}?]"
    return Exchange(expand(question, rng, fields), expand("{Name} is {akind}.", rng, fields))


def yes_or_no(rng: Random, animal: Animal) -> Exchange:
    """A question that is answered with yes or no, and with the fact."""
    fields = animal_fields(animal)
    other = rng.choice(ANIMALS)
    truth = rng.random() < 0.5
    guess = animal if truth else other
    if rng.random() < 0.5:
        said, fact = guess.colour if truth else rng.choice(_COLOURS), animal.colour
        question, answer = f"Is the {{kind}} {said}?", f"the {{kind}} is {fact}."
    else:
        said, fact = guess.food, animal.food
        question = f"[Does the {{kind}} eat|Do {{kinds}} eat] {said}?"
        answer = f"the {{kind}} eats {fact}."
    start = "Yes" if said == fact else "No"
    return Exchange(expand(question, rng, fields), expand(f"{start}, {answer}", rng, fields))


def bigger(rng: Random, animal: Animal) -> Exchange:
    """Compare two animals."""
    other = rng.choice([one for one in ANIMALS if one != animal])
    question = expand(
        f"[Who is bigger, the {animal.kind} or the {other.kind}?"
        f"|Is the {animal.kind} bigger than the {other.kind}?]",
        rng,
        {},
    )
    mine, theirs = SIZES.index(animal.size), SIZES.index(other.size)
    if mine == theirs:
        return Exchange(question, f"They are both {animal.size}.")
    big, small = (animal, other) if mine > theirs else (other, animal)
    start = "" if question.startswith("Who") else ("Yes, " if big == animal else "No, ")
    text = f"{start}the {big.kind} is bigger than the {small.kind}."
    return Exchange(question, expand(text, rng, {}))


def who_is_it(rng: Random, animal: Animal) -> Exchange:
    """Ask which animals share a home, a food, a colour or a size."""
    home = next(place for place in PLACES if place.name == animal.home)
    attribute, question, says = rng.choice(
        (
            ("home", f"[Who lives {home.where}?|Which animals live {home.where}?]", home.where),
            ("food", f"[Who eats {animal.food}?|Which animals eat {animal.food}?]", animal.food),
            ("colour", f"[Which animals are|Who is] {animal.colour}?", animal.colour),
            ("size", f"[Which animals are|Who is] {animal.size}?", animal.size),
        )
    )
    found = [one for one in ANIMALS if getattr(one, attribute) == getattr(animal, attribute)]
    verbs = {"home": ("lives", "live"), "food": ("eats", "eat")}
    verb = verbs.get(attribute, ("is", "are"))[len(found) > 1]
    names = join_list([f"the {one.kind}" for one in found])
    return Exchange(expand(question, rng, {}), expand(f"{names} {verb} {says}.", rng, {}))


def about_place(rng: Random, place: Place) -> list[Exchange]:
    """Facts about a place: one or two questions, the second one saying "there" or "it"."""
    living = [animal for animal in ANIMALS if animal.home == place.name]
    names = join_list([f"{animal.name} the {animal.kind}" for animal in living])
    who = (
        f"{names} {'live' if len(living) > 1 else 'lives'} there."
        if living
        else "Nobody lives there."
    )
    look = f"{place.name} is {place.look}."
    side = f"{place.name} lies in the {place.side} of {WORLD}."
    grows = f"You can find {place.grows} there."
    name = place.name
    tell = f"Tell me about {name}.|Tell me something about {name}.|What do you know about {name}?"
    first = rng.choice((
        (f"[What is {name}?|What is {name} like?|What does {name} look like?]", look),
        (f"[Where is {name}?|Where can I find {name}?]", side),
        (f"[What grows {place.where}?|What can you find {place.where}?]", grows),
        (f"Who lives {place.where}?", who),
        (
            f"[{tell}]",
            f"{look} It lies in the {place.side} of {WORLD}. {grows} {who}",
        ),
    ))  # fmt: skip
    then = rng.choice((
        ("[Who lives there?|Does anybody live there?]", who),
        ("[What grows there?|What can I find there?]", grows),
        ("[Where is it?|And where is it?]", f"It lies in the {place.side} of {WORLD}."),
    ))  # fmt: skip
    pairs = [first] if rng.random() < 0.5 else [first, then]
    return [Exchange(expand(q, rng, {}), expand(a, rng, {})) for q, a in pairs]


def about_thing(rng: Random) -> Exchange:
    """What a thing is for or made of."""
    thing = rng.choice(THINGS)
    a_thing = with_article(thing.noun)
    if rng.random() < 0.6:
        question = expand(
            f"[What is {a_thing} for?|What can you do with {a_thing}?|Why do you need {a_thing}?]",
            rng, {},
        )  # fmt: skip
        return Exchange(question, f"You need {a_thing} {thing.purpose}.")
    question = expand(f"[What is {a_thing} made of?|What are {thing.noun}s made of?]", rng, {})
    return Exchange(question, expand(f"{a_thing} is made of {thing.material}.", rng, {}))


_ABOUT_ANIMALS: Final[tuple[Callable[[Random, Animal], Exchange], ...]] = (
    about_animal, name_or_kind, yes_or_no, bigger, who_is_it,
)  # fmt: skip


def fact_exchanges(rng: Random, turns: int) -> list[Exchange]:
    """Some questions about facts, in a natural order, at most ``turns`` of them."""
    animal = rng.choice(ANIMALS)
    kind = rng.random()
    if kind < 0.45:
        return animal_chain(rng, animal, turns)
    if kind < 0.75:
        first = rng.choice(_ABOUT_ANIMALS)(rng, animal)
        return [first]
    if kind < 0.92:
        return about_place(rng, rng.choice(PLACES))[:turns]
    return [about_thing(rng)]

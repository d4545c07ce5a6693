"""Whole dialogues: a request for a story, what one asks about it, and what comes between."""

from __future__ import annotations

from random import Random
from typing import Final

from .facts import animal_chain, fact_exchanges
from .grammar import expand, with_article
from .messages import Document, Exchange, Message
from .smalltalk import about_me, goodbye, hello, thanks, unknown, unknown_hero
from .story import Cast, Story, draw_cast, tell
from .things import THINGS
from .world import ANIMALS, STORYTELLER, WORLD

_SYSTEMS: Final = (
    f"You are {STORYTELLER}, the storyteller of {WORLD}.",
    f"You are a storyteller. You know the animals and places of {WORLD}.",
    "You are a friendly storyteller.",
    "You are a helpful assistant.",
    f"You tell stories about {WORLD}.",
)
_SHORT_SYSTEMS: Final = ("Tell short stories.", "Keep your stories short.", "Be brief.")
_ASK_FOR_STORY: Final = (
    "[Tell me {a}|Please tell me {a}|Can you tell me {a}|Could you tell me {a}|I would like to hear"
    " {a}|I want to hear {a}|Let me hear {a}|Tell {a}|Do you know {a}|Write {a}|Please write {a}"
    "|Give me {a}|Make up {a}|{a}]"
)
_SUBJECTS: Final = (
    ("about {ahero}", 3),
    ("about the {hero}", 1),
    ("about {ahero} and {a thing}", 5),
    ("about {a thing}", 2),
    ("about {ahero} and {afriend}", 2),
    ("about {ahero} {where}", 2),
    ("about {ahero}, {a thing} and {place}", 2),
    ("about {ahero} with {a thing} {where}", 1),
    ("that happens {where}", 1),
    ("about {place}", 1),
    ("{about plot}", 3),
    ("", 2),
)
#: Fields whose values come from small sets.
_DETAILS: Final = (
    "{feeling}", "{worry}", "{athing}", "{day}", "{aseason}", "{weather}", "{fix}", "{trap}",
    "{sound}", "{where2}", "{spot}",
)  # fmt: skip
_PLOT_REQUESTS: Final = {
    "found": "[about {ahero} who finds {a thing}|in which {ahero} finds {a thing}]",
    "lost": "[about {ahero} who loses {a thing}|about a lost {thing}]",
    "gift": "[about a birthday|about {ahero} and a birthday|about a present]",
    "journey": "[about a journey to {place}|about {ahero} who goes to {place}]",
    "trade": "[about a swap|about {ahero} who wants to have {a thing}]",
    "repair": "[about a broken {thing}|about {ahero} and a broken {thing}]",
    "noise": "[about a strange sound|about a strange sound from {place}]",
    "quarrel": "[about a quarrel|about {ahero} and {afriend} who quarrel]",
    "race": "[about a race|about a race to {place}|about {ahero} and {afriend} who run a race]",
}


def request(cast: Cast, rng: Random, *, short: bool, again: bool = False) -> str:
    """Ask for the story that a cast will tell, naming some of what is in it."""
    fields = cast.fields | {
        "a thing": "",
        "afriend": with_article(cast.friend.kind),
        "athing": with_article(cast.thing.noun),
    }
    if cast.custom_name:
        subject = "about {ahero} [named|called] {Hero}[| and {athing}]"
    elif rng.random() < 0.08:
        subject = "about {Hero}[| and {athing}| and {Friend}]"
    else:
        subject = rng.choices([s for s, _ in _SUBJECTS], weights=[w for _, w in _SUBJECTS])[0]
        subject = subject.replace("{about plot}", _PLOT_REQUESTS[cast.plot.name])
    subject = subject.replace("{a thing}", "{athing}")
    tale = rng.choice(("story", "story", "story", "story", "tale"))
    story = f"{'another' if again else 'a'} {'short ' if short else ''}{tale} {subject}".strip()
    text = expand(_ASK_FOR_STORY.replace("{a}", story), rng, fields)
    is_question = text.startswith(("Can", "Could", "Do"))
    please = " please" if not text.startswith("Please") and rng.random() < 0.1 else ""
    return text + please + ("?" if is_question else ".")


def story_exchanges(
    rng: Random, *, held_out: bool, questions: int, short_system: bool = False, again: bool = False
) -> tuple[list[Exchange], Story]:
    """A story on request and ``questions`` questions about it."""
    short = short_system or rng.random() < 0.15
    cast = draw_cast(rng, held_out=held_out, custom_name=rng.random() < 0.15)
    story = tell(cast, rng, short=short)
    asked = request(cast, rng, short=short and not short_system, again=again)
    exchanges = [Exchange(asked, story.text)]
    return exchanges + follow_ups(rng, story, questions), story


def follow_ups(rng: Random, story: Story, count: int) -> list[Exchange]:
    """Questions whose answers stand in the story just told."""
    pool = [Exchange(asked.question, asked.answer) for asked in story.questions]
    chosen = rng.sample(pool, k=min(count, len(pool)))
    if chosen and rng.random() < 0.25:
        chosen[-1] = rng.choice(_after_story(rng, story))
    return chosen


#: Questions that only stories of some plots answer.
_ONLY_IN: Final = (
    (("found", "quarrel", "lost"), "What did [the {hero}|{s}|{Hero}] find?"),
    (("lost",), "What did [the {hero}|{s}|{Hero}] lose?"),
    (("noise",), "What did [the {hero}|{s}|{Hero}] hear?"),
    (("race",), "What was the prize?"),
    (("repair",), "What broke?"),
    (("gift",), "Whose birthday was it?"),
    (("quarrel",), "Why did they quarrel?"),
)


def _not_said(rng: Random, story: Story) -> Exchange:
    """A question that the story does not answer."""
    plot = story.cast.plot.name
    question = rng.choice([question for plots, question in _ONLY_IN if plot not in plots])
    return Exchange(expand(question, rng, story.cast.fields), "The story does not say that.")


def _after_story(rng: Random, story: Story) -> list[Exchange]:
    """Requests that are about the story as a whole, or turn from it to a fact."""
    sum_up = (
        "[What was the story about?|Tell it in one sentence.|Can you sum it up?|Sum it up."
        "|What happened?|What happened in the story?]"
    )
    teaches = "[What do we learn from it?|What is the moral?|What does the story teach us?]"
    thing = story.cast.thing
    wrong = rng.choice([other for other in THINGS if other != thing])
    truth = rng.random() < 0.5
    named = thing if truth else wrong
    answer = f"{'Yes' if truth else 'No'}, it was about {with_article(thing.noun)}."
    friend = f"{story.cast.friend.name} the {story.cast.friend.kind}"
    return [
        Exchange("Who else was in the story?", f"{friend} was in it, too."),
        Exchange(expand(sum_up, rng, {}), story.summary),
        Exchange(expand(teaches, rng, {}), story.moral),
        Exchange(f"Was it about {with_article(named.noun)}?", answer),
        animal_chain(rng, story.cast.hero, 1)[0],
        _not_said(rng, story),
    ]


def story_dialogue(rng: Random, *, held_out: bool = False, stories: int | None = None) -> Document:
    """A dialogue around stories and what one asks about them.

    Args:
        rng: Source of all choices.
        held_out: Which side of the held-out split the stories are from.
        stories: How many; mostly one when left open.

    Returns:
        The dialogue.
    """
    short_system = rng.random() < 0.05
    exchanges: list[Exchange] = [hello(rng)] if rng.random() < 0.1 else []
    combinations = []
    for index in range(stories or rng.choices((1, 2, 3), weights=(86, 10, 4))[0]):
        count = rng.choices((0, 1, 2, 3, 4, 5, 6), weights=(2, 2, 3, 4, 4, 3, 2))[0]
        told, story = story_exchanges(
            rng, held_out=held_out, questions=count, short_system=short_system, again=index > 0
        )
        exchanges += told
        combination = story.cast.combination
        combinations.append((combination.animal, combination.thing, combination.place))
    if rng.random() < 0.12:
        exchanges.append(rng.choice((thanks, goodbye))(rng))
    messages = _with_system(rng, exchanges, short=short_system)
    return Document("story-chat", messages=messages, combinations=tuple(combinations))


def quiz_dialogue(rng: Random, *, held_out: bool = False) -> Document:
    """A story and many questions about its small details.

    Who and where are learned early. How something looked and how somebody felt are drawn from
    small sets, a guess is often right, and remembering them instead takes more examples.
    """
    cast = draw_cast(rng, held_out=held_out, custom_name=rng.random() < 0.15)
    story = tell(cast, rng, short=rng.random() < 0.5)
    details = [
        Exchange(asked.question, asked.answer)
        for asked in story.questions
        if any(field in asked.ask.answer for field in _DETAILS)
    ]
    rng.shuffle(details)
    exchanges = [
        Exchange(request(cast, rng, short=False), story.text),
        *details[: rng.randint(3, 7)],
    ]
    combination = cast.combination
    return Document(
        "quiz-chat",
        messages=_with_system(rng, exchanges),
        combinations=((combination.animal, combination.thing, combination.place),),
    )


def offered_story_dialogue(rng: Random, *, held_out: bool = False) -> Document:
    """A wish that cannot be met, an offer in its place, and the story that was offered."""
    hero = rng.choice(ANIMALS)
    cast = draw_cast(rng, held_out=held_out, hero=hero)
    story = tell(cast, rng)
    figure, sorry = unknown_hero(rng)
    wish = f"{_ASK_FOR_STORY.replace('{a}', f'a story about {with_article(figure)}')}"
    offer = f"{sorry} Shall I tell you a story about {with_article(hero.kind)}?"
    yes = "[Yes|Yes, please|Yes please|Please do|Sure|Okay|Yes, tell me|Go on][.|!|]"
    text = expand(wish, rng, {})
    mark = "?" if text.startswith(("Can", "Could", "Do")) else "."
    exchanges = [
        Exchange(text + mark, offer),
        Exchange(expand(yes, rng, {}), story.text),
        *follow_ups(rng, story, rng.randint(0, 2)),
    ]
    combination = cast.combination
    return Document(
        "offer-chat",
        messages=_with_system(rng, exchanges),
        combinations=((combination.animal, combination.thing, combination.place),),
    )


def fact_dialogue(rng: Random) -> Document:
    """One to six turns about facts, with small talk before and after now and then."""
    exchanges = [hello(rng)] if rng.random() < 0.1 else []
    for _ in range(rng.choice((1, 1, 2, 3))):
        exchanges += fact_exchanges(rng, turns=rng.randint(1, 3))
    if rng.random() < 0.1:
        exchanges.append(rng.choice((thanks, goodbye))(rng))
    return Document("fact-chat", messages=_with_system(rng, exchanges))


def small_talk_dialogue(rng: Random) -> Document:
    """Greetings, who are you, unknown topics, a farewell."""
    steps = [about_me, unknown, rng.choice((thanks, goodbye, unknown, about_me))]
    if rng.random() < 0.6:
        steps.insert(0, hello)
    count = rng.randint(1, len(steps))
    exchanges = [step(rng) for step in steps[:count]] if rng.random() < 0.7 else [unknown(rng)]
    return Document("small-talk", messages=_with_system(rng, exchanges))


def _with_system(
    rng: Random, exchanges: list[Exchange], *, short: bool = False
) -> tuple[Message, ...]:
    """Lay out exchanges as messages, sometimes under a system message, sometimes sloppily typed."""
    messages = [message for exchange in exchanges for message in exchange.messages()]
    if rng.random() < 0.1:  # People type without capitals and full stops, too.
        messages = [
            Message("user", m.content.lower().rstrip(".?!")) if m.role == "user" else m
            for m in messages
        ]
    if short:
        return (Message("system", rng.choice(_SHORT_SYSTEMS)), *messages)
    if rng.random() < 0.2:
        return (Message("system", rng.choice(_SYSTEMS)), *messages)
    return tuple(messages)

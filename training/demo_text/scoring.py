"""What a person would check first: does it do as asked, does it remember, does it know?"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from .chat import Storyteller
from .dialogue import request
from .facts import animal_chain
from .grammar import with_article
from .messages import Message
from .story import draw_cast, right_answers, tell
from .world import ANIMALS

_FACT_TOPICS: Final = 5
_MOODS_AND_TIMES: Final = ("{feeling}", "{worry}", "{day}", "{aseason}")


@dataclass(frozen=True, slots=True)
class Score:
    """Right answers out of all answers."""

    right: int
    asked: int

    @property
    def share(self) -> float:
        """The share of right answers, from 0 to 1."""
        return self.right / self.asked


def obedience(teller: Storyteller, count: int, seed: int = 7) -> Score:
    """Ask for stories of unseen combinations: are the animal and the thing in them?"""
    rng, right = Random(seed), 0
    for _ in range(count):
        cast = draw_cast(rng, held_out=True)
        animal, thing = cast.hero.kind, cast.thing.noun
        wish = f"Tell me a story about {with_article(animal)} and {with_article(thing)}."
        story = teller.answer([Message("user", wish)])
        right += animal in story and thing in story and cast.hero.name in story
    return Score(right, count)


@dataclass(frozen=True, slots=True)
class Memory:
    """Follow-up answers: about who, what and where, and about moods and times.

    The corpus ties moods to the plot and seasons to the place, so these can be told from either.
    """

    facts: Score
    moods_and_times: Score


def memory(teller: Storyteller, stories: int, seed: int = 8) -> Memory:
    """Ask about given stories of unseen combinations; an answer must be word for word right."""
    rng = Random(seed)
    verdicts: dict[bool, list[bool]] = {False: [], True: []}
    for _ in range(stories):
        cast = draw_cast(rng, held_out=True, custom_name=rng.random() < 0.2)
        story = tell(cast, rng)
        begin = [
            Message("user", request(cast, rng, short=False)),
            Message("assistant", story.text),
        ]
        for question in rng.sample(story.questions, k=3):
            answer = teller.answer([*begin, Message("user", question.question)], 40)
            mood_or_time = any(field in question.ask.answer for field in _MOODS_AND_TIMES)
            verdicts[mood_or_time].append(answer in right_answers(question.ask, cast))
    facts, moods_and_times = (
        Score(sum(verdicts[which]), len(verdicts[which])) for which in (False, True)
    )
    return Memory(facts, moods_and_times)


def knowledge(teller: Storyteller, seed: int = 9) -> Score:
    """Ask for every fact about every animal, in one turn and after another question."""
    rng, right, asked = Random(seed), 0, 0
    for animal in ANIMALS:
        messages: list[Message] = []
        for exchange in animal_chain(rng, animal, _FACT_TOPICS):
            messages.append(Message("user", exchange.user))
            right += teller.answer(messages, 40) == exchange.assistant
            asked += 1
            messages.append(Message("assistant", exchange.assistant))
    return Score(right, asked)

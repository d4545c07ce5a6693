"""What a plot is: beats, and the questions that each beat makes answerable.

A beat is a sentence or two. A telling may leave optional beats out, and the questions about them
go with them, so that a question is never asked about something that the story did not say.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ask:
    """A question about a story and its answer, both templates."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Beat:
    """A step of a plot. ``core`` beats are told even in a very short story."""

    text: str
    asks: tuple[Ask, ...] = ()
    core: bool = True


@dataclass(frozen=True, slots=True)
class Plot:
    """A kind of story. ``summary`` tells it in one sentence, ``moral`` says what it teaches."""

    name: str
    beats: tuple[Beat, ...]
    summary: str
    moral: str
    #: How the hero feels at the end, and in the middle when something is wrong.
    feeling: str
    worry: str
    #: Things that make sense here; empty means all of them.
    things: frozenset[str] = frozenset()
    #: Things that stories with this plot are mostly about.
    usual_things: frozenset[str] = frozenset()
    #: Whether the hero goes somewhere else, so that the place can't be the hero's own home.
    leaves_home: bool = False

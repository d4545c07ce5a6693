"""What the clients of a load run ask for: cases, and each client's own list of what to do.

Everything follows from the seed. Cases come in families: a prompt and edited versions of it, so
that going from one to the other rolls a session back to where they part.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from edge_runtime.sampling import SamplingSettings
from tests.tiny_models import VOCABULARY

__all__ = ["Case", "Errand", "draw_errands", "draw_families"]

_EDITS = 4  # versions of a prompt besides itself
_FIRST_TOKEN = 3  # below are the special ones


@dataclass(frozen=True)
class Case:
    """One generation.

    Attributes:
        prompt: Token ids.
        new_tokens: The most to generate.
        seed: Of the draws; greedy where None.
    """

    prompt: tuple[int, ...]
    new_tokens: int
    seed: int | None

    @property
    def sampling(self) -> SamplingSettings:
        """Greedy, or plain draws: filters would add thresholds at which rounding shows."""
        if self.seed is None:
            return SamplingSettings()
        return SamplingSettings(temperature=0.8, seed=self.seed)


@dataclass(frozen=True)
class Errand:
    """One thing that a client does.

    Attributes:
        case: What it generates.
        opens: Whether it opens a new session for it, and with which of the splits.
        leaves_after: Pieces of text after which it leaves the stream; to the end where None.
    """

    case: Case
    opens: int | None
    leaves_after: int | None


def draw_families(
    count: int, *, longest_prompt: int, new_tokens: int, order: random.Random
) -> list[list[Case]]:
    """Prompts with their edited versions; lengths are spread evenly on a logarithmic scale."""
    families = []
    for _ in range(count):
        base = _tokens(round(longest_prompt ** order.random()), order)
        prompts = [base, *(_edited(base, longest_prompt, order) for _ in range(_EDITS))]
        family = []
        for prompt in prompts:
            seed = order.randrange(2**32) if order.random() < 0.5 else None
            family.append(Case(prompt, order.randint(max(1, new_tokens // 2), new_tokens), seed))
        families.append(family)
    return families


def draw_errands(
    families: list[list[Case]], count: int, *, splits: int, order: random.Random
) -> list[Errand]:
    """One client's errands; the first one opens a session."""
    errands: list[Errand] = []
    family = order.choice(families)
    for number in range(count):
        if order.random() < 0.6:
            family = order.choice(families)
        opens = order.randrange(splits) if number == 0 or order.random() < 0.15 else None
        case = order.choice(family)
        is_left = order.random() < 0.15
        leaves_after = order.randint(1, max(1, case.new_tokens // 2)) if is_left else None
        errands.append(Errand(case, opens, leaves_after))
    return errands


def _tokens(count: int, order: random.Random) -> tuple[int, ...]:
    return tuple(order.randrange(_FIRST_TOKEN, VOCABULARY) for _ in range(count))


def _edited(prompt: tuple[int, ...], longest: int, order: random.Random) -> tuple[int, ...]:
    """The prompt with a few tokens of its middle taken out and as many others put in, or so."""
    start = order.randrange(len(prompt))
    stop = min(len(prompt), start + order.randint(0, 4))
    inserted = _tokens(order.randint(1, 5), order)
    return (prompt[:start] + inserted + prompt[stop:])[:longest]

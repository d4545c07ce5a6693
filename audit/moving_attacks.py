"""The attacks on a device whose split moves: one of several is drawn for each session.

Who runs the trunk knows which layers it runs, and the hello says it to whoever reads the wire; so
the search through the public head takes the right depth each time. What could change is how well an
inverter fits that was trained on states of several depths.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from audit.attacks.inverter import InverterSettings, Pairs, take_positions
from audit.capture import Victim
from audit.results import Finding
from audit.text_attacks import AttackedSetting, known_pairs

__all__ = ["attack_moving_split", "draw"]


def draw(count: int, splits: int, seed: int) -> list[int]:
    """Which split each of so many sessions has; a device draws from the system's random source."""
    drawn: list[int] = np.random.default_rng((seed, 3)).integers(splits, size=count).tolist()
    return drawn


def attack_moving_split(
    attacked: AttackedSetting,
    victims: Sequence[Victim],
    texts: Sequence[Sequence[int]],
    positions: int,
    inverter: InverterSettings,
) -> list[Finding]:
    """The search at the depth that was drawn, and an inverter trained on all depths together.

    Args:
        attacked: The captures, of splits as they were drawn.
        victims: The device at each of its splits.
        texts: Known text.
        positions: How much of it is known, in sessions that each had a split drawn.
        inverter: How the inverter is trained.
    """
    drawn = draw(len(texts), len(victims), attacked.record.seed + 1)
    parts = [
        known_pairs(
            victim,
            [text for text, chosen in zip(texts, drawn, strict=True) if chosen == number],
            positions // len(victims) + 1,
        )[0]
        for number, victim in enumerate(victims)
    ]
    mixed = take_positions(_in_turn(parts), positions)
    return [attacked.search(), attacked.prompt_inverter(mixed, inverter)]


def _in_turn(parts: Sequence[Pairs]) -> Pairs:
    """The texts of all parts, so that the first ones are of every part."""
    pairs = [
        (place, states, ids)
        for part in parts
        for place, (states, ids) in enumerate(zip(part.states, part.token_ids, strict=True))
    ]
    pairs.sort(key=lambda one: one[0])
    return Pairs(tuple(states for _, states, _ in pairs), tuple(ids for _, _, ids in pairs))

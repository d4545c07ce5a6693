from __future__ import annotations

import numpy as np
import pytest

from audit.attacks.inverter import InverterSettings, Pairs, take_positions, train_inverter

VOCABULARY = 12


def texts(count, seed, *, hidden=True):
    """Random tokens, and states that are noisy codes of them, or noise alone."""
    random = np.random.default_rng(seed)
    codes = np.random.default_rng(99).normal(size=(VOCABULARY, 16))
    token_ids = tuple(tuple(random.integers(0, VOCABULARY, 20).tolist()) for _ in range(count))
    states = tuple(
        (codes[list(ids)] * hidden + 0.3 * random.normal(size=(20, 16))).astype(np.float32)
        for ids in token_ids
    )
    return Pairs(states, token_ids)


def share_right(inverter, pairs):
    right = [
        a == b
        for states, ids in zip(pairs.states, pairs.token_ids, strict=True)
        for a, b in zip(inverter.tokens(states), ids, strict=True)
    ]
    return sum(right) / len(right)


@pytest.mark.parametrize("kind", ["linear", "transformer"])
def test_it_learns_a_code(kind) -> None:
    settings = InverterSettings(kind, steps=120, positions=200, width=48)
    inverter = train_inverter(texts(40, 0), VOCABULARY, settings)
    assert share_right(inverter, texts(10, 1)) > 0.95


def test_it_learns_nothing_from_noise() -> None:
    """The control: what it finds elsewhere is in the states."""
    settings = InverterSettings(steps=120, positions=200)
    inverter = train_inverter(texts(40, 0, hidden=False), VOCABULARY, settings)
    assert share_right(inverter, texts(10, 1, hidden=False)) < 0.25


def test_so_many_positions_are_taken_and_no_more() -> None:
    taken = take_positions(texts(5, 0), 50)
    assert [len(ids) for ids in taken.token_ids] == [20, 20, 10]
    assert [len(states) for states in taken.states] == [20, 20, 10]


def test_progress_is_told_ten_times() -> None:
    calls = []
    settings = InverterSettings(steps=20, positions=200)
    train_inverter(texts(5, 0), VOCABULARY, settings, lambda: calls.append(1))
    assert len(calls) == 10


def test_one_text_is_enough_to_train_on() -> None:
    inverter = train_inverter(texts(1, 0), VOCABULARY, InverterSettings(steps=10, positions=20))
    assert len(inverter.tokens(texts(1, 1).states[0])) == 20

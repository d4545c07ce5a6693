from __future__ import annotations

import math

import numpy as np
import pytest

from audit.defending.noise import NOTHING, Defence, apply, epsilon, noise_scale, quantize_rows


@pytest.mark.parametrize("kind", ["gaussian", "d_chi"])
def test_noise_is_as_long_as_was_asked(kind) -> None:
    defence = Defence(kind, 0.5)
    hidden = np.full((4000, 64), 3.0, np.float32)
    scale = noise_scale(defence, 3.0, 64)
    noise = apply(hidden, defence, scale, np.random.default_rng(0)) - hidden
    length = math.sqrt((noise**2).sum(1).mean())
    assert length == pytest.approx(0.5 * 3.0 * 8, rel=0.01)
    assert noise.mean() == pytest.approx(0, abs=0.01)


def test_the_length_of_d_chi_noise_is_gamma_distributed() -> None:
    """‖z‖ ~ Gamma(width, scale): mean width · scale, variance width · scale²."""
    noise = apply(
        np.zeros((20000, 16), np.float32), Defence("d_chi", 1.0), 0.25, np.random.default_rng(1)
    )
    lengths = np.linalg.norm(noise, axis=1)
    assert lengths.mean() == pytest.approx(16 * 0.25, rel=0.01)
    assert lengths.var() == pytest.approx(16 * 0.25**2, rel=0.05)


def test_the_privacy_parameters() -> None:
    # √(2 ln 125000) = 4.8448
    assert epsilon(Defence("gaussian", 1.0), 2.0, 10.0) == pytest.approx(24.224, abs=1e-3)
    assert epsilon(Defence("d_chi", 1.0), 2.0, 10.0) == 5.0
    assert epsilon(NOTHING, 0.0, 10.0) == math.inf


def test_nothing_changes_nothing() -> None:
    hidden = np.ones((2, 4), np.float32)
    assert apply(hidden, NOTHING, 0.0, np.random.default_rng(0)) is hidden
    assert noise_scale(NOTHING, 3.0, 4) == 0.0


def test_rows_are_rounded_to_their_own_steps() -> None:
    rows = np.array([[0.0, 1.0, -3.0, 2.9], [0.0, 0.0, 0.0, 0.0]], np.float32)
    assert quantize_rows(rows, 3).tolist() == [[0.0, 1.0, -3.0, 3.0], [0.0, 0.0, 0.0, 0.0]]
    assert quantize_rows(rows, 2).tolist() == [[0.0, 0.0, -3.0, 3.0], [0.0, 0.0, 0.0, 0.0]]
    assert quantize_rows(rows, 1)[0] == pytest.approx([1.725, 1.725, -1.725, 1.725])


def test_a_permutation_keeps_the_values_and_is_the_same_for_a_seed() -> None:
    hidden = np.arange(32, dtype=np.float32).reshape(2, 16)  # (32,) -> (2, 16)
    defence = Defence("permutation")
    first = apply(hidden, defence, 0.0, np.random.default_rng(7))
    again = apply(hidden, defence, 0.0, np.random.default_rng(7))
    assert (first == again).all()
    assert (first != hidden).any()
    assert (np.sort(first, axis=1) == hidden).all()

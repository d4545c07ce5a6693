from __future__ import annotations

import numpy as np

from audit.attacks.alignment import whitening


def test_states_get_mean_0_and_covariance_1() -> None:
    random = np.random.default_rng(0)
    mixed = (random.normal(size=(5000, 6)) @ random.normal(size=(6, 6)) + 7).astype(np.float32)
    made = whitening([mixed[:3000], mixed[3000:]])(mixed)
    assert np.abs(made.mean(0)).max() < 1e-3
    assert np.abs(np.cov(made.T) - np.eye(6)).max() < 1e-2


def test_a_channel_that_never_changes_is_left_small() -> None:
    states = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    states[:, 2] = 3.0
    assert np.isfinite(whitening([states])(states)).all()

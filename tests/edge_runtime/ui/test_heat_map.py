"""Numbers as pictures."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.ui.heat_map import heat_map, noise_picture


def test_signs_have_colours_and_magnitudes_have_brightness() -> None:
    row = np.zeros((3, 9), np.float32)
    row[1] = np.linspace(-1, 1, 9)
    row[2, 4] = 1000.0  # one value far off does not darken the others
    shown = heat_map(row).astype(int)
    assert shown.shape == (3, 9, 3)
    red, _, blue = shown[1].T
    assert (blue[:3] > red[:3]).all()  # what is below 0 is blue
    assert (red[6:] > blue[6:]).all()
    assert (np.diff(shown[1].sum(axis=1)[:4]) < 0).all()
    assert (np.diff(shown[1].sum(axis=1)[5:]) > 0).all()
    assert (shown[0] == shown[1][4]).all()


@pytest.mark.parametrize(("width", "columns"), [(1, 1), (256, 256), (257, 129), (4096, 256)])
def test_many_dimensions_become_fewer_columns(width, columns) -> None:
    states = np.random.default_rng(0).normal(size=(2, width)).astype(np.float32)
    assert heat_map(states).shape == (2, columns, 3)


def test_of_several_dimensions_the_farthest_is_seen() -> None:
    states = np.zeros((1, 512), np.float32)
    states[0, 7], states[0, 300] = -5, 5
    shown = heat_map(states)
    differs = (shown != shown[0, 0]).any(axis=2)[0]
    assert list(np.flatnonzero(differs)) == [3, 150]


def test_states_that_are_all_alike() -> None:
    assert len(np.unique(heat_map(np.zeros((4, 4), np.float32)).reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("channels", [1, 2, 4, 16])
def test_noise_of_any_number_of_channels(channels) -> None:
    noise = np.random.default_rng(1).normal(size=(channels, 8, 6)).astype(np.float32)
    shown = noise_picture(noise)
    assert shown.shape == (8, 6, 3)
    assert shown.dtype == np.uint8
    assert 100 < shown.mean() < 155
    assert shown.std() > 30


def test_noise_that_is_none_is_grey() -> None:
    assert (noise_picture(np.full((4, 2, 2), 3.0, np.float32)) == 128).all()

"""The functions of our own: accurate, and the same to the last bit wherever this runs."""

import math

import numpy as np
import pytest

from lambda_split.diffusion.elementary import cos_sin, exp, log


def units_apart(found, expected):
    """How many places of the last digit lie between."""
    return np.max(np.abs(found - expected) / np.spacing(np.abs(expected)))


def test_log_is_accurate_to_units_in_the_last_place():
    random = np.random.default_rng(0)
    values = np.concatenate(
        [
            random.random(20_000),
            1.0 - np.arange(1, 1001) * 2.0**-53,
            1.0 + np.arange(1, 1001) * 2.0**-52,
            2.0 ** np.arange(-1000.0, 1000.0) * 1.1,
        ]
    )
    expected = np.array([math.log(value) for value in values])
    assert units_apart(log(values), expected) <= 3
    assert log(1.0) == 0.0


def test_exp_is_accurate_to_units_in_the_last_place():
    values = np.concatenate([np.linspace(-700, 700, 20_001), np.linspace(-1, 1, 20_001)])
    expected = np.array([math.exp(value) for value in values])
    assert units_apart(exp(values), expected) <= 3
    assert exp(0.0) == 1.0


def test_cosine_and_sine_are_accurate():
    turns = np.concatenate([np.linspace(0, 1, 20_001), 0.125 + np.arange(-50, 50) * 2.0**-55])
    cosine, sine = cos_sin(turns)
    # The angle itself is known to one rounding of a full circle only.
    assert np.abs(cosine - [math.cos(2 * math.pi * turn) for turn in turns]).max() < 2e-15
    assert np.abs(sine - [math.sin(2 * math.pi * turn) for turn in turns]).max() < 2e-15
    np.testing.assert_array_equal(cos_sin([0, 0.25, 0.5, 0.75, 1])[0], [1, 0, -1, 0, 1])
    np.testing.assert_array_equal(cos_sin([0, 0.25, 0.5, 0.75, 1])[1], [0, 1, 0, -1, 0])


@pytest.mark.parametrize(
    ("found", "bits"),
    [
        (lambda: log(0.1), "-0x1.26bb1bbb55515p+1"),
        (lambda: log(14.6146), "0x1.574c770f78abap+1"),
        (lambda: exp(-0.7), "0x1.fc80db9dd5542p-2"),
        (lambda: exp(12.3), "0x1.ad17fe8ccf016p+17"),
        (lambda: cos_sin(0.1)[0], "0x1.9e3779b97f4a8p-1"),
        (lambda: cos_sin(0.9)[1], "-0x1.2cf2304755a5dp-1"),
    ],
)
def test_literal_bits(found, bits):
    assert float(found()).hex() == bits


def test_shapes_and_scalars():
    assert log(np.ones((2, 3))).shape == (2, 3)
    assert exp([0.0, 1.0]).shape == (2,)
    assert cos_sin(np.zeros((4, 0)))[0].shape == (4, 0)
    assert log(2.0).shape == ()

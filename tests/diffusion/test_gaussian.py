"""Noise: its literal values, its statistics, and what it depends on."""

import hashlib

import numpy as np
import pytest

from lambda_split.diffusion.gaussian import MAX_SEED, START, _key, _stream, standard_normal
from lambda_split.errors import UsageError

SHAPE = (4, 64, 64)


def test_the_stream_is_that_of_splitmix64():
    # The numbers that published implementations give for this seed.
    assert _stream(1234567, 5).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_literal_keys():
    assert _key(0, START, 0) == 5436661192049744987
    assert _key(7, 0, 0) == 12775865390481453646
    assert _key(MAX_SEED, 49, 3) == 12500985361574060682


def test_literal_values():
    found = standard_normal(7, 0, [0], (1, 2, 3)).ravel()
    assert [float(value).hex() for value in found] == [
        "-0x1.22ef2a0000000p+0",
        "-0x1.e0318e0000000p+0",
        "-0x1.0985360000000p+0",
        "-0x1.d810560000000p+0",
        "0x1.0561b40000000p-3",
        "0x1.9f8c800000000p-4",
    ]
    noise = standard_normal(42, START, [0, 1], SHAPE)
    assert (
        hashlib.sha256(noise.astype("<f4").tobytes()).hexdigest()
        == "e7a9fff2d459b268198f8e12d49f463158934543bbf2e941a2265dd5b06fdefa"
    )


def test_shape_and_dtype():
    noise = standard_normal(1, 2, [0, 5, 9], (3, 5, 7))
    assert noise.dtype == np.float32
    assert noise.shape == (3, 3, 5, 7)
    assert standard_normal(1, 2, [], (3, 5, 7)).shape == (0, 3, 5, 7)


def test_an_image_of_a_batch_is_the_one_made_alone():
    batch = standard_normal(3, 4, [0, 1, 2], SHAPE)
    for index in range(3):
        alone = standard_normal(3, 4, [index], SHAPE)
        np.testing.assert_array_equal(batch[index], alone[0])


def test_moments_are_those_of_a_gaussian():
    noise = np.concatenate([standard_normal(seed, 0, [0, 1], SHAPE).ravel() for seed in range(64)])
    noise = noise.astype(np.float64)
    size = noise.size  # two million
    # Each within four standard errors.
    assert abs(noise.mean()) < 4 / size**0.5
    assert abs(noise.var() - 1) < 4 * (2 / size) ** 0.5
    assert abs((noise**3).mean()) < 4 * (15 / size) ** 0.5
    assert abs((noise**4).mean() - 3) < 4 * (96 / size) ** 0.5
    assert 4.5 < np.abs(noise).max() < 8.6


def test_the_distribution_is_gaussian():
    noise = np.sort(standard_normal(11, 0, range(8), SHAPE).ravel())
    # At these the distribution function is 1 %, 10 %, 25 %, 50 % and so on.
    for quantile, share in [
        (-2.3263479, 0.01),
        (-1.2815516, 0.1),
        (-0.6744898, 0.25),
        (0.0, 0.5),
        (0.6744898, 0.75),
        (1.2815516, 0.9),
        (2.3263479, 0.99),
    ]:
        found = np.searchsorted(noise, quantile) / noise.size
        assert abs(found - share) < 4 * (share * (1 - share) / noise.size) ** 0.5


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((1, 0, 0), (2, 0, 0)),
        ((0, START, 0), (0, 0, 0)),
        ((5, 10, 0), (5, 11, 0)),
        ((5, 10, 0), (5, 10, 1)),
        ((5, 0, 1), (5, 1, 0)),
        ((0, 0, 1), (1, 0, 0)),
        ((2**63, 0, 0), (0, 0, 0)),
        ((2**32, 0, 0), (1, 0, 0)),
    ],
)
def test_seeds_steps_and_images_are_uncorrelated(first, second):
    left, right = (
        standard_normal(seed, step, [image], SHAPE).ravel().astype(np.float64)
        for seed, step, image in (first, second)
    )
    limit = 4.5 / left.size**0.5
    for shift in (0, 1, 2, 64):
        assert abs(np.mean(left * np.roll(right, shift))) < limit
        assert abs(np.mean((left**2 - 1) * (np.roll(right, shift) ** 2 - 1))) < 2 * limit


def test_neighbours_in_one_image_are_uncorrelated():
    noise = standard_normal(9, 3, [0], (4, 128, 128)).ravel().astype(np.float64)
    for shift in (1, 2, 3, 128, 128 * 128):
        assert abs(np.mean(noise[shift:] * noise[:-shift])) < 4.5 / (noise.size - shift) ** 0.5


@pytest.mark.parametrize(
    ("seed", "step", "image"),
    [
        (-1, 0, 0),
        (2**64, 0, 0),
        (True, 0, 0),
        (0, -2, 0),
        (0, 2**31, 0),
        (0, 0, -1),
        (0, 0, 2**31),
    ],
)
def test_what_is_out_of_range_is_refused(seed, step, image):
    with pytest.raises(UsageError, match="must be a whole number from"):
        standard_normal(seed, step, [image], (1, 2, 2))


def test_the_ends_of_the_ranges_are_taken():
    noise = standard_normal(MAX_SEED, 2**31 - 1, [2**31 - 1], (1, 2, 2))
    assert np.isfinite(noise).all()

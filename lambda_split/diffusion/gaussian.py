"""Gaussian noise that device and trunk draw alike, from numbers and without a state.

A picture's noise is a function of its seed, of the step that draws it, and of the image's index
among those of the seed. So a trunk that knows the three needs no noise sent, any step can be drawn
again, and an image of a batch is the one that its index gives when it is made alone. Generators of
libraries promise their streams only until their next version; this one is described in full here:

1. ``key = absorb(absorb(absorb(DOMAIN, seed), step + 1), image)`` in 64-bit integers that wrap,
   with ``absorb(key, value) = mix(key + GAMMA + value)``.
2. The key's stream is that of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
   number generators", OOPSLA 2014): number *i*, from 0, is ``mix(key + (i + 1) * GAMMA)``.
3. Numbers 2p and 2p + 1 make elements 2p and 2p + 1 of the image's latents, counted row by row and
   channel by channel (Box and Muller, "A note on the generation of random normal deviates", 1958)::

       radius = sqrt(-2 ln((number[2p] // 2**11 + 1) / 2**53))
       turns = (number[2p + 1] // 2**11) / 2**53
       element[2p], element[2p + 1] = radius * cos(2π turns), radius * sin(2π turns)

   in float64, with the logarithm, cosine and sine of ``elementary``, then rounded to float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lambda_split.diffusion.elementary import cos_sin, log
from lambda_split.errors import UsageError

__all__ = ["MAX_SEED", "START", "standard_normal"]

# The step that draws the latents from which a picture starts; those of the solver count from 0.
START = -1
MAX_SEED = 2**64 - 1

_MAX_INDEX = 2**31 - 1
_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio
_DOMAIN = int.from_bytes(b"latents\0", "little")
# The multipliers of SplitMix64's finalizer, variant 13 of Stafford's.
_MIX_FIRST = 0xBF58476D1CE4E5B9
_MIX_SECOND = 0x94D049BB133111EB

_Words = npt.NDArray[np.uint64]


def standard_normal(
    seed: int, step: int, images: Sequence[int], shape: tuple[int, int, int]
) -> npt.NDArray[np.float32]:
    """Noise of mean 0 and variance 1.

    Args:
        seed: From 0 to 2**64 - 1.
        step: The solver's step, or :data:`START`.
        images: The index of each image of the batch.
        shape: Channels, height and width of one image's latents.

    Returns:
        float32 (B, C, H, W); no element is larger than 8.6 in magnitude.

    Raises:
        UsageError: the seed is no 64-bit number, or step or index are out of their range.
    """
    _check("the seed", seed, 0, MAX_SEED)
    _check("the step", step, START, _MAX_INDEX)
    for image in images:
        _check("an image's index", image, 0, _MAX_INDEX)
    count = math.prod(shape)
    noise = np.empty((len(images), count), dtype=np.float32)
    for row, image in enumerate(images):
        noise[row] = _normals(_key(seed, step, image), count)
    return noise.reshape(len(images), *shape)  # (B, C * H * W) -> (B, C, H, W)


def _check(name: str, value: int, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not lowest <= value <= highest:
        raise UsageError(f"{name} must be a whole number from {lowest} to {highest}, not {value!r}")


def _key(seed: int, step: int, image: int) -> int:
    key = _DOMAIN
    for value in (seed, step + 1, image):
        key = _mix_one((key + _GAMMA + value) & _MASK)
    return key


def _mix_one(word: int) -> int:
    return int(_mix(np.array([word], dtype=np.uint64))[0])


def _mix(words: _Words) -> _Words:
    """SplitMix64's finalizer on each word, in place."""
    words ^= words >> np.uint64(30)
    words *= np.uint64(_MIX_FIRST)
    words ^= words >> np.uint64(27)
    words *= np.uint64(_MIX_SECOND)
    words ^= words >> np.uint64(31)
    return words


def _stream(key: int, count: int) -> _Words:
    """The first ``count`` numbers of a key's stream, uint64 (count,)."""
    words = np.arange(1, count + 1, dtype=np.uint64)
    words *= np.uint64(_GAMMA)
    words += np.uint64(key)
    return _mix(words)


def _normals(key: int, count: int) -> npt.NDArray[np.float32]:
    """float32 (count,): Box-Muller over the pairs of a key's stream."""
    pairs = (count + 1) // 2
    bits = (_stream(key, 2 * pairs) >> np.uint64(11)).astype(np.float64)  # exact: 53 bits
    radius = np.sqrt(log((bits[0::2] + 1.0) * 2.0**-53) * -2.0)
    cosine, sine = cos_sin(bits[1::2] * 2.0**-53)
    normals = np.empty(2 * pairs, dtype=np.float32)
    normals[0::2] = radius * cosine
    normals[1::2] = radius * sine
    return normals[:count]

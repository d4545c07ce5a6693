"""Numbers as pictures: hidden states as a heat map, predicted noise as colours."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from edge_runtime.pictures.decoder import Pixels

__all__ = ["heat_map", "noise_picture"]

Floats = npt.NDArray[np.float32]

# From the lowest value to the highest: blue, night, amber. The middle is dark in the dark and the
# light page alike, so that what stands out are the values that are far from 0.
_ANCHORS: Final = np.array(
    [[125, 211, 252], [14, 116, 144], [15, 23, 42], [180, 83, 9], [253, 230, 138]], np.float32
)
_STRONGEST: Final = 98.0  # percentile of the magnitudes that has the full colour
_SPREAD: Final = 2.5  # standard deviations of noise that are still told apart


def heat_map(states: Floats, *, most_columns: int = 256) -> Pixels:
    """Hidden states as a picture: a row for each position, a column for each dimension.

    A few dimensions of a transformer's hidden states are far larger than the others (Dettmers et
    al., arXiv 2208.07339), so magnitudes are shown by their arcsinh, and cut off at a percentile.

    Args:
        states: float32 (positions, width), both at least 1, finite.
        most_columns: Where there are more dimensions, each column is the one of several that is
            farthest from 0.

    Returns:
        uint8 (positions, columns, 3).
    """
    columns = _farthest(states, most_columns)
    scale = max(float(np.percentile(np.abs(columns), 50)), 1e-6)
    bent = np.arcsinh(columns / scale)
    strongest = max(float(np.percentile(np.abs(bent), _STRONGEST)), 1e-6)
    place = (np.clip(bent / strongest, -1, 1) + 1) * (len(_ANCHORS) - 1) / 2
    known = np.arange(len(_ANCHORS))
    channels = [np.interp(place, known, _ANCHORS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)  # 3 × (n, c) -> (n, c, 3)


def _farthest(states: Floats, most: int) -> Floats:
    """(n, W) -> (n, c), c at most ``most``: of neighbours the value that is farthest from 0."""
    positions, width = states.shape
    group = -(-width // most)
    padded = np.pad(states, ((0, 0), (0, -width % group)))  # 0 is the farthest from 0 never
    grouped = padded.reshape(positions, -1, group)  # (n, W') -> (n, c, group)
    farthest = np.abs(grouped).argmax(axis=2)[..., None]  # (n, c, 1)
    found: Floats = np.take_along_axis(grouped, farthest, axis=2)[..., 0]  # -> (n, c)
    return found


def noise_picture(noise: Floats) -> Pixels:
    """Predicted noise as colours: its first three channels are red, green and blue.

    Args:
        noise: float32 (C, h, w) of one picture, finite.

    Returns:
        uint8 (h, w, 3).
    """
    channels = [noise[min(channel, len(noise) - 1)] for channel in range(3)]
    picture = np.stack(channels, axis=-1)  # 3 × (h, w) -> (h, w, 3)
    spread = max(float(picture.std()), 1e-6) * _SPREAD
    shown: Pixels = np.clip((picture - picture.mean()) / spread * 127.5 + 128, 0, 255).astype(
        np.uint8
    )
    return shown

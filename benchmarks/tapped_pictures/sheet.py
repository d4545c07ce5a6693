"""The true pictures and what was seen of them, side by side."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from textwrap import fill

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from benchmarks.picture_formats.plots import save_small
from benchmarks.tapped_pictures.attempts import Attempt

__all__ = ["draw_sheet"]

Pictures = npt.NDArray[np.float32]


def draw_sheet(
    true: Pictures, attempts: Sequence[Attempt], rows: Sequence[int], path: pathlib.Path
) -> None:
    """Draw some pictures, an attempt a column.

    Args:
        true: float32 (n, height, width, 3).
        attempts: What was seen.
        rows: Numbers of the pictures to show.
        path: Where the PNG goes.
    """
    mpl.use("Agg")  # no screen is needed; chosen here so that importing has no effect
    import matplotlib.pyplot as plt

    columns = {"the picture": true} | {
        fill(f"{one.split}: {one.name}, {one.step} steps", 17): one.pictures for one in attempts
    }
    figure, places = plt.subplots(
        len(rows), len(columns), figsize=(1.05 * len(columns), 0.97 * len(rows) + 0.45), dpi=90,
        squeeze=False,
    )  # fmt: skip
    for number, row in enumerate(rows):
        for place, (name, pictures) in zip(places[number], columns.items(), strict=True):
            place.imshow(np.rint(pictures[row]).astype(np.uint8), interpolation="nearest")
            place.axis("off")
            if number == 0:
                place.set_title(name, fontsize=6)
    figure.tight_layout(pad=0.3)
    save_small(figure, path)
    plt.close(figure)

"""Pictures about the model: the loss curves, and the sheet of samples."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl

from .drawing import Pixels

_SEEN, _UNSEEN, _TRAINING = "#c05a2e", "#6a9a3b", "#4472a8"


def draw_loss_curves(log: dict[str, Any], path: Path) -> None:
    """Draw the losses of the stages over their steps."""
    mpl.use("Agg")  # No screen is needed; chosen here so that importing has no effect.
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2), dpi=90)
    left.plot(*zip(*log["autoencoder"]["losses"], strict=True), linewidth=0.8, color=_TRAINING)
    left.set_title("autoencoder", fontsize=9)
    left.set_ylabel("errors of pixels + divergence")
    middle.plot(*zip(*log["wording"]["losses"], strict=True), linewidth=0.8, color=_TRAINING)
    middle.set_title("text encoders", fontsize=9)
    middle.set_ylabel("cross entropy of the answers")
    right.plot(
        *zip(*log["denoiser"]["losses"], strict=True),
        linewidth=0.8, color=_TRAINING, label="training",
    )  # fmt: skip
    if log["denoiser"]["held_out"]:
        steps, seen, unseen = zip(*log["denoiser"]["held_out"], strict=True)
        right.plot(steps, seen, "o-", markersize=2, linewidth=0.8, color=_SEEN,
                   label="held out by seed, averaged weights")  # fmt: skip
        right.plot(steps, unseen, "s--", markersize=2, linewidth=0.8, color=_UNSEEN,
                   label="things never shown, averaged weights")  # fmt: skip
        right.legend(fontsize=7)
    right.set_title("UNet", fontsize=9)
    right.set_ylabel("weighted squared error of the noise")
    for axes in (left, middle, right):
        axes.set_yscale("log")
        axes.set_xlabel("step")
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def draw_sheet(rows: list[tuple[str, list[Pixels]]], path: Path) -> None:
    """Draw a table of pictures: a prompt a row, a seed a column.

    Args:
        rows: Prompts, and the pictures of seeds 0, 1, … for each.
        path: Where the PNG goes.
    """
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    columns = len(rows[0][1])
    figure, table = plt.subplots(
        len(rows), columns + 1, figsize=(2.4 + 1.05 * columns, 1.09 * len(rows)), dpi=90,
        width_ratios=[2.3, *[1] * columns], squeeze=False,
    )  # fmt: skip
    for number, (axes, (prompt, pictures)) in enumerate(zip(table, rows, strict=True)):
        axes[0].text(0, 0.5, fill(prompt, 30), fontsize=7.5, va="center")
        for seed, (place, picture) in enumerate(zip(axes[1:], pictures, strict=True)):
            place.imshow(picture, interpolation="nearest")
            if number == 0:
                place.set_title(f"seed {seed}", fontsize=7.5)
        for place in axes:
            place.axis("off")
    figure.tight_layout(pad=0.3)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)

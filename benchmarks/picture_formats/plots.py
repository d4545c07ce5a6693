"""The figures as curves over the bits of a value, and the pictures side by side."""

from __future__ import annotations

import io
import pathlib
from collections import defaultdict
from collections.abc import Sequence
from textwrap import fill

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.picture_formats.chosen_formats import bits_of, family_of
from benchmarks.picture_formats.measuring import Figures
from benchmarks.picture_formats.scores import Scores

__all__ = ["draw_curves", "draw_sheet", "save_small"]

Pictures = npt.NDArray[np.float32]
_FAMILIES = {
    "int": ("int, min–max", "#c05a2e", "o"),
    "nf": ("nf", "#4472a8", "s"),
    "nf-channel": ("nf-channel", "#6a9a3b", "^"),
    "nf-delta": ("nf-delta", "#7a4aa0", "D"),
    "nf-channel-delta": ("nf-channel-delta", "#3aa6a0", "v"),
}
_SINGLE = {"fp8-e4m3": ("fp8-e4m3", "#555555", "P"), "fp8-e5m2": ("fp8-e5m2", "#999999", "X")}
_SHEET = ("fp16", "int8", "int5", "int4", "nf4-delta", "int3", "nf3-delta", "int2", "nf2-delta",
          "int1", "nf1-delta")  # fmt: skip
_SHEET_ROWS = 5


def draw_curves(figures: Sequence[Figures], path: pathlib.Path) -> None:
    """PSNR, SSIM and VIF over bits a value; dashed where the trunk is not synchronized."""
    mpl.use("Agg")  # no screen is needed; chosen here so that importing has no effect
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(11, 4.1), dpi=90)
    lines: dict[str, list[Figures]] = defaultdict(list)
    for one in figures:
        lines[family_of(one.form)].append(one)
    for axes, score in zip(panels, ("psnr", "ssim", "vif"), strict=True):
        for family, (label, colour, marker) in {**_FAMILIES, **_SINGLE}.items():
            for together in (True, False):
                # Of the trunk that is not synchronized only the plain ones, or nothing can be seen.
                if lines[family] and (together or family in ("int", "nf")):
                    axes.plot(
                        [bits_of(one.form) for one in lines[family]],
                        [_score(one, score, together=together) for one in lines[family]],
                        "-" if together else "--",
                        color=colour, marker=marker, markersize=3.5, linewidth=1,
                        label=label if together else f"{label}, not synchronized",
                    )  # fmt: skip
        axes.set_xlabel("bits of a value")
        axes.set_title({"psnr": "PSNR, dB"}.get(score, score.upper()), fontsize=9)
        axes.set_xticks(range(1, 9))
        axes.grid(visible=True, alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=7, loc="lower center", ncols=5)
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    save_small(figure, path)
    plt.close(figure)


def draw_sheet(
    wanted: Pictures,
    figures: Sequence[Figures],
    prompts: Sequence[str],
    seeds: int,
    path: pathlib.Path,
) -> None:
    """The first prompts' pictures, of the first seed, in some formats side by side.

    Args:
        wanted: In fp32, float32 (prompts × seeds, height, width, 3).
        figures: Hold the formats' own.
        prompts: What the pictures show.
        seeds: How many pictures a prompt has.
        path: Where the PNG goes.
    """
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    by_label = {one.form.label: one.pictures for one in figures}
    columns = {"fp32": wanted} | {name: by_label[name] for name in _SHEET if name in by_label}
    rows = min(_SHEET_ROWS, len(prompts))
    figure, places = plt.subplots(
        rows, len(columns) + 1, figsize=(1.7 + 0.85 * len(columns), 0.88 * rows + 0.15), dpi=90,
        width_ratios=[1.9, *[1] * len(columns)], squeeze=False,
    )  # fmt: skip
    for row in range(rows):
        places[row][0].text(0, 0.5, fill(prompts[row], 26), fontsize=6, va="center")
        for place, (label, pictures) in zip(places[row][1:], columns.items(), strict=True):
            place.imshow(np.rint(pictures[row * seeds]).astype(np.uint8), interpolation="nearest")
            if row == 0:
                place.set_title(label, fontsize=7)
        for place in places[row]:
            place.axis("off")
    figure.tight_layout(pad=0.2)
    save_small(figure, path)
    plt.close(figure)


def save_small(figure: Figure, path: pathlib.Path) -> None:
    """Write a PNG of at most 256 colours, a third as large as one of all colours."""
    whole = io.BytesIO()
    figure.savefig(whole, format="png")
    with Image.open(whole) as drawn:
        drawn.convert("RGB").quantize(256).save(path, optimize=True)


def _score(one: Figures, name: str, *, together: bool) -> float:
    scores: Scores = one.synchronized if together else one.unsynchronized
    return float(getattr(scores, name))

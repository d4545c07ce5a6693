"""The report's plot of pictures, as PNG."""

from __future__ import annotations

import matplotlib.figure

from audit.picture_results import PictureFinding, PictureResults
from audit.reporting.text_plots import png_of

__all__ = ["pictures_plot"]

_COLOURS = {"": "#7a8a99", "whole": "#b2432f", "deep": "#d6932e"}


def pictures_plot(results: PictureResults) -> bytes:
    """How near each attack comes to the pictures, in the first format of each split."""
    first = {cost.split: cost.form for cost in reversed(results.costs)}
    bars = [one for one in results.findings if one.form == first.get(one.split, "")][::-1]
    figure = matplotlib.figure.Figure(figsize=(8.5, 1 + 0.32 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    for place, one in enumerate(bars):
        mean, psnr = one.likeness.mean_ssim, one.likeness.mean_psnr
        length = max(0.0, mean.value)  # below 0 where pictures are opposite
        error = [[max(0.0, length - mean.low)], [max(0.0, mean.high - length)]]
        axes.barh(place, length, xerr=error, color=_COLOURS[one.split], ecolor="#444", capsize=2)
        said = "the same" if psnr is None else f"{psnr.value:.1f} dB"
        axes.annotate(
            said, (max(length, mean.high), place), (5, 0),
            textcoords="offset points", va="center", fontsize=7,
        )  # fmt: skip
    axes.set_yticks(range(len(bars)), [_label(one) for one in bars], fontsize=8)
    axes.set_xlim(0, 1.12)
    axes.set_xlabel("SSIM to what is shown; 1: the same (bar: 95 % bootstrap interval)")
    axes.spines[["top", "right"]].set_visible(False)
    return png_of(figure)


def _label(finding: PictureFinding) -> str:
    if not finding.split:
        return f"without looking: {finding.attack}"
    own = f", {finding.own_pictures} own pictures" if finding.own_pictures else ""
    return f"{finding.split}: {finding.attack}{own} (step {finding.step})"

"""The report's plots of texts, as PNG."""

from __future__ import annotations

import io

import matplotlib.figure

from audit.reporting.text_summary import curves
from audit.results import TextAudit

__all__ = ["attacks_plot", "defences_plot", "png_of"]

_COLOURS = {"tls-tapper": "#7a8a99", "open-weights": "#b2432f", "trunk-only": "#d6932e"}


def attacks_plot(audit: TextAudit) -> bytes:
    """What each attack recovers where nothing is done against it, with its interval."""
    plain = [one for one in audit.findings if one.setting.defence == "none"]
    plain = [one for one in plain if one.setting.ends == "public"][::-1]
    figure = matplotlib.figure.Figure(figsize=(8.5, 1 + 0.32 * len(plain)), layout="constrained")
    axes = figure.add_subplot()
    for place, one in enumerate(plain):
        share = one.recovered
        error = [[share.value - share.low], [share.high - share.value]]
        axes.barh(
            place, share.value, xerr=error, color=_COLOURS[one.adversary], ecolor="#444", capsize=2
        )
    known = [f", {one.known_positions:,} known" if one.known_positions else "" for one in plain]
    axes.set_yticks(
        range(len(plain)),
        [
            f"{one.target}: {one.attack}{more} "
            f"({one.setting.head_layers}+{one.setting.tail_layers})"
            for one, more in zip(plain, known, strict=True)
        ],
        fontsize=8,
    )
    axes.set_xlim(0, 1.02)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.set_xlabel("tokens exactly right (bar: 95 % bootstrap interval over texts)")
    axes.spines[["top", "right"]].set_visible(False)
    return png_of(figure)


def defences_plot(audit: TextAudit) -> bytes:
    """What the best attack recovers against what the defence costs."""
    figure = matplotlib.figure.Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, points in curves(audit).items():
        rise = [max(0.0, point.rise) for point in points]
        recovered = [point.recovered for point in points]
        spread = [
            [point.recovered - point.spread[0] for point in points],
            [point.spread[1] - point.recovered for point in points],
        ]
        axes.errorbar(rise, recovered, spread, label=name, marker="o", capsize=2, markersize=4)
    axes.axvspan(0, 0.05, ymax=0.1 / 1.02, color="#5a9e6f", alpha=0.25, lw=0)
    axes.axvline(0.05, color="#888", lw=0.8, ls="--")
    axes.axhline(0.1, color="#888", lw=0.8, ls="--")
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set_xlabel("perplexity higher by")
    axes.set_ylabel("prompt tokens recovered by the best attack")
    axes.set_title("Worth having: the green corner", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return png_of(figure)


def png_of(figure: matplotlib.figure.Figure) -> bytes:
    """The file, the same bytes for the same figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130, metadata={"Software": None})
    return file.getvalue()

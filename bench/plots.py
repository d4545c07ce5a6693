"""Results as pictures."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.parts import token_parts
from bench.results import Growth, Measurement
from bench.spread import Spread
from lambda_split.whole_file import write_whole

__all__ = ["draw_growth", "draw_latency", "draw_speed"]

_COLOURS = ("#4472a8", "#c05a2e", "#6a9a3b", "#7a4aa0", "#3aa6a0", "#999999")
_PARTS = ("head", "link", "trunk", "tail", "rest")
_ROW_INCHES = 0.32


def draw_speed(measurements: Sequence[Measurement], path: pathlib.Path) -> None:
    """Tokens per second: the medians as bars, lowest and highest as whiskers.

    Raises:
        OutputNotWritable: the file cannot be written.
    """

    def draw(axes: Axes) -> None:
        links = list(dict.fromkeys(_link(each) for each in measurements))
        for number, each in enumerate(measurements):
            speed = Spread.of(run.tokens_per_s for run in each.runs)
            whisker = [[speed.median - speed.low], [speed.high - speed.median]]
            colour = _COLOURS[links.index(_link(each)) % len(_COLOURS)]
            axes.barh(number, speed.median, xerr=whisker, color=colour, capsize=2)
            axes.annotate(f" {speed.median:.1f}", (speed.high, number), va="center", fontsize=7)
        axes.set_xscale("log")
        axes.margins(x=0.1)
        axes.set_xlabel("tokens/s after the first token")

    _draw_rows(measurements, draw, path)


def draw_latency(measurements: Sequence[Measurement], path: pathlib.Path) -> None:
    """Where the time of a token goes, as stacked bars; errors as :func:`draw_speed`."""

    def draw(axes: Axes) -> None:
        left = [0.0] * len(measurements)
        found = [token_parts(each.runs) for each in measurements]
        for name, colour in zip(_PARTS, _COLOURS, strict=False):
            widths = [getattr(parts, f"{name}_s") * 1000 for parts in found]
            axes.barh(range(len(measurements)), widths, left=left, color=colour, label=name)
            left = [begin + width for begin, width in zip(left, widths, strict=True)]
        axes.set_xlabel("milliseconds per token after the first")
        axes.legend(fontsize=7)

    _draw_rows(measurements, draw, path)


def draw_growth(growths: Sequence[Growth], path: pathlib.Path) -> None:
    """What the next token costs over the size of the context; errors as :func:`draw_speed`."""
    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    axes = figure.subplots()
    links = list(dict.fromkeys(each.case.link for each in growths))
    for each in growths:
        everything = each.case.mode == "split-everything"
        axes.plot(
            [point.context for point in each.points],
            [point.cost.seconds / point.tokens * 1000 for point in each.points],
            "--" if everything else "-",
            marker="o",
            markersize=3,
            color=_COLOURS[links.index(each.case.link) % len(_COLOURS)],
            label=("everything again" if everything else "new positions only")
            + ("" if each.case.link is None else f", {each.case.link.name}"),
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("positions before it")
    axes.set_ylabel("milliseconds of the next token")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    _save(figure, path)


def _draw_rows(
    measurements: Sequence[Measurement], draw: Callable[[Axes], None], path: pathlib.Path
) -> None:
    """A bar for each case, the first one on top."""
    height = 1.2 + _ROW_INCHES * len(measurements)
    figure = Figure(figsize=(8, height), dpi=100, layout="constrained")
    axes = figure.subplots()
    draw(axes)
    names = [f"{each.case.setting} · {_link(each)}" for each in measurements]
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    _save(figure, path)


def _link(each: Measurement) -> str:
    return "no link" if each.case.link is None else each.case.link.name


def _save(figure: Figure, path: pathlib.Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_whole(path, buffer.getvalue())

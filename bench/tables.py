"""Results as Markdown tables: pure text, for the report and for stdout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.parts import token_parts
from bench.prediction import Prediction
from bench.results import Growth, GrowthPoint, Measurement, Results
from bench.spread import Spread
from bench.traffic import hidden_bytes, overhead, positions_crossing

__all__ = [
    "growth_table",
    "latency_table",
    "markdown",
    "memory_table",
    "prediction_table",
    "speed_table",
    "traffic_table",
]

_NOTHING = "–"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is text, the others are figures."""
    lines = [
        "| " + " | ".join(header) + " |",
        "|---" + "|---:" * (len(header) - 1) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def speed_table(measurements: Sequence[Measurement]) -> str:
    """Time to the first token and tokens per second, with their spread."""
    header = ("setting", "link", "first token, ms", "tokens/s")
    rows = []
    for each in measurements:
        first = Spread.of(run.first.seconds for run in each.runs)
        speed = Spread.of(run.tokens_per_s for run in each.runs)
        rows.append((each.case.setting, _link(each), first.text(".0f", 1000), speed.text()))
    return markdown(header, rows)


def latency_table(measurements: Sequence[Measurement]) -> str:
    """Where the time of a token goes, after the first."""
    names = ("head", "link", "trunk", "tail", "rest", "together")
    header = ("setting", "link", *(f"{name}, ms" for name in names))
    rows = []
    for each in measurements:
        parts = token_parts(each.runs)
        figures = (
            parts.head_s,
            parts.link_s,
            parts.trunk_s,
            parts.tail_s,
            parts.rest_s,
            parts.seconds,
        )
        cells = [f"{seconds * 1000:.2f}" for seconds in figures]
        rows.append((each.case.setting, _link(each), *cells))
    return markdown(header, rows)


def traffic_table(results: Results) -> str:
    """Bytes at the socket of one generation, against those of the hidden states.

    They are the same on every link, so each setting's first link stands for all.
    """
    header = (
        "setting",
        "up",
        "down",
        "positions up",
        "down",
        "hidden × bytes × positions",
        "overhead",
        "round trips",
        "handshake up",
        "down",
    )
    rows = []
    for each in _first_links(results.measurements):
        run = each.runs[0]
        cells = [_NOTHING] * 4
        if each.case.split is not None:
            everything = each.case.mode == "split-everything"
            positions = positions_crossing(run, each.case.split, everything=everything)
            hidden = hidden_bytes(positions, results.model.hidden_size, results.settings.codec)
            cells = [
                f"{positions.up:,}",
                f"{positions.down:,}",
                f"{hidden.up + hidden.down:,}",
                f"{overhead(run.socket, hidden):.1%}",
            ]
        trips = run.first.round_trips + run.rest.round_trips
        shake = each.handshake
        rows.append(
            (
                each.case.setting,
                f"{run.socket.up:,}",
                f"{run.socket.down:,}",
                *cells,
                f"{trips:,}",
                f"{shake.up:,}",
                f"{shake.down:,}",
            )
        )
    return markdown(header, rows)


def memory_table(measurements: Sequence[Measurement]) -> str:
    """Peak memory of each side, on each setting's first link."""
    rows = []
    for each in _first_links(measurements):
        server = each.server_peak_rss
        rows.append(
            (
                each.case.setting,
                f"{each.device_peak_rss / 1e6:.0f}",
                _NOTHING if server is None else f"{server / 1e6:.0f}",
            )
        )
    return markdown(("setting", "device, MB", "server, MB"), rows)


def growth_table(growths: Sequence[Growth]) -> str:
    """What the next token costs, a row for each size of the context."""
    header = ["context"]
    columns: list[dict[int, GrowthPoint]] = []
    for each in growths:
        way = "everything" if each.case.mode == "split-everything" else "new only"
        where = "" if each.case.link is None else f", {each.case.link.name}"
        header += [f"{way}{where}: ms", "kB up", "kB down"]
        columns.append({point.context: point for point in each.points})
    sizes = sorted({size for column in columns for size in column})
    rows = [
        (f"{size:,}", *(cell for column in columns for cell in _growth_cells(column.get(size))))
        for size in sizes
    ]
    return markdown(header, rows)


def prediction_table(predictions: Sequence[Prediction]) -> str:
    """Predicted against measured speed."""
    header = (
        *("setting", "link", "measured", "plain model", "error"),
        *("with overhead", "error", "parts' own times", "error"),
    )
    rows = [
        (
            each.setting,
            each.link.name,
            f"{each.measured:.2f}",
            f"{each.plain:.2f}",
            f"{each.plain_error:+.1%}",
            f"{each.full:.2f}",
            f"{each.full_error:+.1%}",
            f"{each.paced:.2f}",
            f"{each.paced_error:+.1%}",
        )
        for each in predictions
    ]
    return markdown(header, rows)


def _growth_cells(point: GrowthPoint | None) -> tuple[str, str, str]:
    if point is None:
        return _NOTHING, _NOTHING, _NOTHING
    return (
        f"{point.cost.seconds / point.tokens * 1000:.1f}",
        f"{point.socket.up / point.tokens / 1000:.1f}",
        f"{point.socket.down / point.tokens / 1000:.1f}",
    )


def _link(each: Measurement) -> str:
    return _NOTHING if each.case.link is None else each.case.link.name


def _first_links(measurements: Sequence[Measurement]) -> list[Measurement]:
    seen: dict[str, Measurement] = {}
    for each in measurements:
        seen.setdefault(each.case.setting, each)
    return list(seen.values())

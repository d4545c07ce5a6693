"""The report: ``report.md`` with its tables, and the pictures beside it."""

from __future__ import annotations

import pathlib

from bench.prediction import predictions
from bench.results import Results
from bench.tables import (
    growth_table,
    latency_table,
    memory_table,
    prediction_table,
    speed_table,
    traffic_table,
)
from lambda_split.counting import counted
from lambda_split.errors import OutputNotWritable
from lambda_split.whole_file import write_whole

__all__ = ["REPORT_NAME", "remove_report", "report", "write_report"]

REPORT_NAME = "report.md"
_PICTURES = ("speed.png", "latency.png", "growth.png")
_FRAMING = 28 + 8  # bytes: the frame's header, and WebSocket's with its mask


def report(results: Results) -> str:
    """The report as Markdown."""
    found = results.measurements
    predicted = predictions(found)
    sections = [
        ("Speed", _speed_text(results), speed_table(found), "speed.png"),
        ("Where a token's time goes", _LATENCY, latency_table(found), "latency.png"),
        ("Traffic", _traffic_text(results), traffic_table(results), None),
        ("Memory", _MEMORY, memory_table(found), None),
    ]
    if results.growths:
        text = _growth_text(results)
        sections.append(("As the context grows", text, growth_table(results.growths), "growth.png"))
    if predicted:
        sections.append(("Predicted", _PREDICTED, prediction_table(predicted), None))
    lines = [_title(results)]
    for heading, text, table, picture in sections:
        if table.count("\n") > 2:  # has rows
            shown = f"\n![{heading}]({picture})\n" if picture is not None else ""
            lines.append(f"## {heading}\n{text}\n\n{table}{shown}")
    return "\n".join(lines)


def write_report(results: Results, folder: pathlib.Path) -> pathlib.Path:
    """Write the report and its pictures.

    Returns:
        Where the report lies.

    Raises:
        OutputNotWritable: one of the files cannot be written.
    """
    from bench.plots import draw_growth, draw_latency, draw_speed

    path = folder / REPORT_NAME
    speed, latency, growth = (folder / name for name in _PICTURES)
    if results.measurements:
        draw_speed(results.measurements, speed)
        draw_latency(results.measurements, latency)
    if results.growths:
        draw_growth(results.growths, growth)
    write_whole(path, report(results).encode())
    return path


def remove_report(folder: pathlib.Path) -> None:
    """Remove a report and its pictures, which would tell of other results than the folder has.

    Raises:
        OutputNotWritable: one of them cannot be removed.
    """
    for name in (REPORT_NAME, *_PICTURES):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputNotWritable(str(folder / name), error.strerror or str(error)) from error


def _title(results: Results) -> str:
    model, settings = results.model, results.settings
    threads = "its own choice of" if settings.threads is None else str(settings.threads)
    if settings.server == "own":
        cloud = f"{settings.dtype} in PyTorch"
        threads = f"{threads} threads each"
        where = f"Machine: {results.machine}. Device, link and server are processes of it."
    else:
        cloud = "a server that was there already"
        threads = f"{threads} threads on the device"
        where = (
            f"Machine: {results.machine}. Device and link are processes of it; what lies between "
            "it and the server comes on top of each link."
        )
    links = "".join(f"- {link.name}: {link.description or 'nothing is slowed down'}\n"
                    for link in settings.links)  # fmt: skip
    return (
        f"# What splitting {model.id} costs\n"
        f"Width {model.hidden_size}, {model.layer_count} layers. On the device: "
        f"{settings.weights} weights under onnxruntime; in the cloud: {cloud}; "
        f"{settings.codec} on the wire; {threads}.\n\n"
        f"{where}\n\n"
        f"Links (emulated; loopback goes through the same proxy):\n\n{links}"
    )


def _speed_text(results: Results) -> str:
    settings = results.settings
    return (
        f"{counted(settings.prompt_tokens, 'prompt token')}, {settings.max_new_tokens} new ones, "
        f"greedy; median (lowest – highest) of {settings.repetitions} after a short one that "
        "warms up, the links taking turns. The speed is that after the first token. *Everything "
        "again*: head and trunk compute, and the link carries, all positions for each token."
    )


_LATENCY = (
    "Medians, per token after the first. *Link* is waiting less the cloud's own time, *rest* is "
    "encoding, sending, sampling and text on the device. Without a split the cloud's time stands "
    "under *trunk*, and the device's under *head* (all layers but the last) and *tail*. "
    "`cloud-only` streams: the cloud does not wait for the device between tokens."
)
_MEMORY = (
    "Peak resident memory of each process. The device's has no torch; of `cloud-only` it has "
    "nothing but a WebSocket."
)
_PREDICTED = (
    "Tokens/s = 1 / (head + trunk + tail + RTT + bytes / bandwidth), from the times on loopback "
    "and the link's own figures; *with overhead* adds what a round trip on loopback costs besides, "
    "and the rest of the device's time; *parts' own times* takes those of head, trunk and tail "
    "from the link itself, so that what is left of an error is not their pace. "
    "Each generation is predicted from that on loopback "
    "in the same round; medians over the rounds, also of the errors."
)


def _traffic_text(results: Results) -> str:
    row = results.model.hidden_size * (4 if results.settings.codec == "fp32" else 2)
    return (
        "Bytes of one generation, counted at the socket: with WebSocket's framing, without TCP's "
        "headers. The handshake (upgrade request, hello and welcome) comes once for each session "
        "and is not among them. A position takes "
        f"{row:,} bytes; sent alone, its frame and WebSocket add {_FRAMING} up and "
        f"{_FRAMING - 4} down, {(2 * _FRAMING - 4) / (2 * row):.1%}."
    )


def _growth_text(results: Results) -> str:
    split = results.growths[0].case.split
    where = "" if split is None else f"Split {split.head_layers} + {split.tail_layers}. "
    return f"{where}The next token, mean of {results.growths[0].points[0].tokens}."

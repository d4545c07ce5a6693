"""The panel that makes the idea visible: what left the device, what did not, where time went."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.pictures.stream import ImageStats
from edge_runtime.stats import GenerationStats
from edge_runtime.ui.heat_map import heat_map
from edge_runtime.ui.markup import Part, bar, figures, picture, quote, section, split_bar
from lambda_split.counting import counted
from lambda_split.split import Split

__all__ = ["PictureWire", "TextWire", "picture_panel", "text_panel"]

_HONEST = (
    "Hidden states are no text, but they are no encryption either: whoever runs the trunk of a "
    "model whose weights are public can win practically all of it back. <code>lambda-split "
    "audit</code> measures that."
)
# Colours of the stats' shares, in their order.
_KINDS = ("device", "link", "cloud", "device-2", "device-3")
_HONEST_PICTURE = (
    "The trunk gets the prompt's encoding, not its words, and what it works on is the picture "
    "itself: trust it as one that can see both. <code>lambda-split audit</code> measures that."
)


@dataclass(frozen=True, eq=False)
class TextWire:
    """What a panel shows of one text.

    Attributes:
        split: Where the model is cut; None before a session was open.
        layer_count: Decoder layers of the whole model.
        codec: How hidden states cross the wire.
        question: What was written.
        answer: What the model has said of it so far.
        stats: What that has cost.
        sent: float32 (positions, hidden size), what was sent last; None before anything was.
        unseen: Something may have been sent that was not looked at.
    """

    split: Split | None
    layer_count: int
    codec: str
    question: str = ""
    answer: str = ""
    stats: GenerationStats | None = None
    sent: npt.NDArray[np.float32] | None = None
    unseen: bool = False


def text_panel(wire: TextWire) -> str:
    """The panel beside a chat."""
    parts = [_text_split(wire)]
    if wire.unseen:
        some = "<p>Hidden states of what was said may have been sent, all or a part. They are "
        some += "shown with the first token of an answer, and none has come.</p>"
        parts.append(section("What left this device for this answer", some))
        parts.append(section("What stayed here", quote(wire.question), _HONEST))
        return _panel(parts)
    if wire.stats is None or wire.sent is None or not wire.sent.size:
        nothing = "<p>Nothing yet: say something.</p>"
        parts.append(section("What left this device", nothing, _HONEST))
        return _panel(parts)
    stats = wire.stats
    positions, width = wire.sent.shape
    shown = picture(
        heat_map(wire.sent),
        f"heat map of {counted(positions, 'row')} of {width} numbers that were sent",
    )
    parts += [
        section(
            "What left this device for this answer",
            figures(
                (f"{stats.bytes_up:,}", "bytes up"),
                (f"{stats.bytes_down:,}", "bytes down"),
                (f"{stats.round_trips:,}", "round trip" + "s" * (stats.round_trips != 1)),
            )
            + shown,
            f"Each row is a token's hidden state, {width:,} numbers as {wire.codec}, the newest at "
            f"the bottom: {counted(positions, 'position')}.",
        ),
        section(
            "What stayed here",
            quote(wire.question) + (quote(wire.answer) if wire.answer else ""),
            _HONEST,
        ),
        section("Where the time went", _text_times(stats), _speed(stats)),
    ]
    return _panel(parts)


def _text_split(wire: TextWire) -> str:
    if wire.split is None:
        return section("The split", "<p>Chosen when the session begins.</p>")
    head, tail = wire.split.head_layers, wire.split.tail_layers
    trunk = wire.layer_count - head - tail
    # Embedding and LM head weigh something, too: a part without layers is still seen.
    return section(
        "The split",
        split_bar(
            [
                Part("head", max(head, 1), f"{counted(head, 'layer')}, here", "device"),
                Part("trunk", trunk, f"{counted(trunk, 'layer')}, in the cloud", "cloud"),
                Part("tail", max(tail, 1), f"{counted(tail, 'layer')}, here", "device"),
            ]
        ),
    )


def _text_times(stats: GenerationStats) -> str:
    tokens = max(stats.completion_tokens, 1)
    return bar(
        [
            Part(each.name, each.seconds, f"{each.seconds * 1000 / tokens:.1f} ms", kind)
            for each, kind in zip(stats.shares, _KINDS, strict=False)
        ]
    )


def _speed(stats: GenerationStats) -> str:
    told = [f"per new token; first token after {stats.ttft_s * 1000:.0f} ms"]
    if stats.tokens_per_s:
        told.append(f"{stats.tokens_per_s:.1f} tokens/s")
    if stats.cached_tokens:
        told.append(f"{counted(stats.cached_tokens, 'prompt token')} still held, not sent again")
    if stats.reconnects:
        told.append(f"{counted(stats.reconnects, 'reconnect')}, nothing lost")
    return "; ".join(told)


@dataclass(frozen=True, eq=False)
class PictureWire:
    """What a panel shows of pictures.

    Attributes:
        split: ``whole`` or ``deep``.
        format: How noise or features cross the wire.
        prompt: What was written.
        negative: What was written of what to lead away from.
        stats: What they have cost so far.
        sent: float32 (1 or 2, tokens, width), the prompt's encoding, and that of what to lead away
            from where it was sent; None before anything was.
    """

    split: str
    format: str
    prompt: str = ""
    negative: str = ""
    stats: ImageStats | None = None
    sent: npt.NDArray[np.float32] | None = None


def picture_panel(wire: PictureWire) -> str:
    """The panel beside pictures."""
    parts = [_picture_split(wire)]
    if wire.stats is None or wire.sent is None:
        nothing = "<p>Nothing yet: describe a picture.</p>"
        parts.append(section("What left this device", nothing, _HONEST_PICTURE))
        return _panel(parts)
    stats = wire.stats
    prompts, tokens, width = wire.sent.shape
    rows = wire.sent.reshape(-1, width)  # (prompts, tokens, width) -> (rows, width)
    shown = picture(heat_map(rows), f"heat map of {counted(len(rows), 'row')} of {width} numbers")
    told = f"The prompt's encoding, {counted(tokens, 'row')} of {width:,} numbers"
    if prompts > 1:
        told += ", and as many of what to lead away from"
    if wire.split == "whole":
        told += ", with seed and settings"
    crossing = "predicted noise comes back" if wire.split == "whole" else "features go both ways"
    parts += [
        section(
            "What left this device",
            figures((f"{stats.bytes_up:,}", "bytes up"), (f"{stats.bytes_down:,}", "bytes down"))
            + shown,
            f"{told}; then, each step, {crossing}, as {wire.format}.",
        ),
        section(
            "What stayed here",
            quote(wire.prompt) + (quote(wire.negative) if wire.negative else ""),
            _HONEST_PICTURE,
        ),
        section("Where the time went", _picture_times(stats), _picture_speed(stats)),
    ]
    return _panel(parts)


def _picture_split(wire: PictureWire) -> str:
    ends = "" if wire.split == "whole" else ", first and last blocks"
    return section(
        "The split",
        split_bar(
            [
                Part("encoders", 1, f"here{ends}", "device"),
                Part("denoiser", 3, "in the cloud", "cloud"),
                Part("decoder", 1, "solver, too, here", "device"),
            ]
        ),
    )


def _picture_times(stats: ImageStats) -> str:
    return bar(
        [
            Part(each.name, each.seconds, f"{each.seconds:.2f} s", kind)
            for each, kind in zip(stats.shares, _KINDS, strict=True)
            if each.seconds or each.name != "blocks here"
        ]
    )


def _picture_speed(stats: ImageStats) -> str:
    told = f"{stats.total_s:.2f} s in all, previews included; parts work at the same time"
    if stats.reconnects:
        told += f"; {counted(stats.reconnects, 'reconnect')}, nothing lost"
    return told


def _panel(parts: list[str]) -> str:
    return f'<div class="ls-panel">{"".join(parts)}</div>'

"""Pieces of the page that Gradio has no component for. All text is escaped; nothing is loaded."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge_runtime.pictures.decoder import Pixels
from edge_runtime.pictures.png import encode_png

__all__ = [
    "Part",
    "as_typed",
    "bar",
    "figures",
    "picture",
    "quote",
    "section",
    "split_bar",
    "status",
]


@dataclass(frozen=True)
class Part:
    """A part of a bar.

    Attributes:
        name: What it is.
        amount: How long it is, beside the others.
        label: What it says, such as ``3.1 ms``.
        kind: ``device``, ``link`` or ``cloud``: its colour.
    """

    name: str
    amount: float
    label: str
    kind: str


def section(title: str, body: str, note: str = "") -> str:
    """A titled part of a panel; body and note are markup."""
    told = f'<p class="ls-note">{note}</p>' if note else ""
    return f'<section class="ls-section"><h3>{html.escape(title)}</h3>{body}{told}</section>'


def figures(*pairs: tuple[str, str]) -> str:
    """Figures with what they are: (figure, name)."""
    items = "".join(
        f"<div><strong>{html.escape(figure)}</strong><span>{html.escape(name)}</span></div>"
        for figure, name in pairs
    )
    return f'<div class="ls-figures">{items}</div>'


def bar(parts: Sequence[Part]) -> str:
    """Parts side by side, each as long as its amount, and what they are below."""
    whole = sum(part.amount for part in parts) or 1.0
    stretches = "".join(
        f'<i class="ls-{part.kind}" style="flex-grow:{max(part.amount / whole, 0.004):.4f}"></i>'
        for part in parts
    )
    names = "".join(
        f'<li><i class="ls-{part.kind}"></i>{html.escape(part.name)} '
        f"<b>{html.escape(part.label)}</b></li>"
        for part in parts
    )
    legend = f'<ul class="ls-legend">{names}</ul>'
    return f'<div class="ls-bar" role="presentation">{stretches}</div>{legend}'


def split_bar(parts: Sequence[Part]) -> str:
    """The model's parts side by side, named inside."""
    boxes = "".join(
        f'<div class="ls-{part.kind}" style="flex-grow:{part.amount:g}">'
        f"<b>{html.escape(part.name)}</b><span>{html.escape(part.label)}</span></div>"
        for part in parts
    )
    return f'<div class="ls-split">{boxes}</div>'


def picture(pixels: Pixels, name: str, *, sharp: bool = True, download: str = "") -> str:
    """A picture inside the page itself, so that none is left in a temporary folder.

    Args:
        pixels: uint8 (height, width, 3).
        name: What it shows, for who cannot see it.
        sharp: Enlarged as squares, not smoothly.
        download: Name of the file that a click saves; none where empty.
    """
    source = f"data:image/png;base64,{base64.b64encode(encode_png(pixels)).decode('ascii')}"
    style = "ls-sharp" if sharp else "ls-smooth"
    image = f'<img class="{style}" alt="{html.escape(name, quote=True)}" src="{source}">'
    if not download:
        return image
    file = html.escape(download, quote=True)
    return f'<a class="ls-download" href="{source}" download="{file}" title="save it">{image}</a>'


def quote(text: str, *, longest: int = 280) -> str:
    """A text as it was written, its beginning left out where it is long."""
    shown = text if len(text) <= longest else f"… {text[-longest:]}"
    return f'<div class="ls-quote" dir="auto">{html.escape(shown)}</div>'


_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~&$:=])")


def as_typed(text: str) -> str:
    """Markdown that shows a text as it is: escaped (CommonMark, section 2.4), its indents kept."""
    lines = []
    for line in text.split("\n"):
        words = line.lstrip(" \t")
        indent = "&nbsp;" * (len(line.expandtabs(4)) - len(words.expandtabs(4)))
        lines.append(indent + _MARKDOWN.sub(r"\\\1", words))
    return "\n".join(lines)


def status(text: str, *, trouble: bool = False) -> str:
    """A line that a screen reader says; nothing where there is nothing to say."""
    kind = "ls-trouble" if trouble else "ls-told"
    return f'<div class="ls-status {kind}" role="status">{html.escape(text)}</div>' if text else ""

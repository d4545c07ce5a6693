"""What objects look like in a notebook: small pieces of HTML, and one line where there is none.

The HTML needs nothing from elsewhere, inherits the page's colours so that it reads on light and on
dark, and what is put into it is escaped: a model may say anything.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Fact", "Share", "as_duration", "card", "plain", "preformatted", "shares_bar"]

Fact = tuple[str, str]

# Those of Okabe and Ito, which also those who see few colours tell apart, on light and on dark.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
_REST_COLOUR = "rgba(128,128,128,.45)"
_LEAST_SHARE = 0.005  # less is not seen

_CARD = (
    "border:1px solid rgba(128,128,128,.35);border-radius:6px;padding:.6em .8em;"
    "margin:.2em 0;max-width:60em;font-size:.95em;line-height:1.45;text-align:left"
)
_FAINT = "opacity:.75;font-size:.9em"
_TOGETHER = "white-space:nowrap"
_TEXT = "white-space:pre-wrap;overflow-wrap:anywhere;margin:.3em 0 .5em 0"
_BAR = "display:flex;height:.55em;border-radius:.25em;overflow:hidden;margin:.5em 0 .25em 0"
_SWATCH = "display:inline-block;width:.7em;height:.7em;border-radius:.15em;margin-right:.3em"


@dataclass(frozen=True)
class Share:
    """A part's share of the time.

    Attributes:
        name: The part.
        seconds: What it took.
    """

    name: str
    seconds: float


def as_duration(seconds: float) -> str:
    """Seconds for people: ``45 ms``, ``1.52 s``."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def plain(kind: str, facts: Sequence[Fact]) -> str:
    """An object in one line.

    Args:
        kind: Its class.
        facts: Names and values.
    """
    return f"<{kind}: {', '.join(f'{name} {value}' for name, value in facts)}>"


def card(kind: str, facts: Sequence[Fact], *parts: str) -> str:
    """An object as HTML.

    Args:
        kind: Its class.
        facts: Names and values; escaped here.
        parts: HTML that stands before them.
    """
    told = " · ".join(
        f'<span style="{_TOGETHER}">{html.escape(name)} <b>{html.escape(value)}</b></span>'
        for name, value in facts
    )
    return (
        f'<div style="{_CARD}"><div style="{_FAINT}">{html.escape(kind)}</div>'
        f'{"".join(parts)}<div style="{_FAINT}">{told}</div></div>'
    )


def preformatted(text: str) -> str:
    """A text as HTML that shows it as it is, in the direction of its own script."""
    return f'<div dir="auto" style="{_TEXT}">{html.escape(text)}</div>'


def shares_bar(shares: Sequence[Share], total_s: float) -> str:
    """Where the time went, as a bar with a legend; empty where none was measured.

    Parts may work at the same time: then their sum is the whole.

    Args:
        shares: The parts.
        total_s: All the time; what no part took is shown as the rest.
    """
    known = sum(share.seconds for share in shares)
    whole = max(total_s, known)
    if whole <= 0:
        return ""
    coloured = list(zip(shares, _COLOURS, strict=False))
    coloured.append((Share("rest", whole - known), _REST_COLOUR))
    seen = [(share, colour) for share, colour in coloured if share.seconds / whole >= _LEAST_SHARE]
    described = ", ".join(f"{share.name} {share.seconds / whole:.0%}" for share, _ in seen)
    bar = "".join(
        f'<span style="width:{share.seconds / whole:.2%};background-color:{colour}"></span>'
        for share, colour in seen
    )
    legend = "".join(
        f'<span style="margin-right:1em;{_TOGETHER}"><span style="{_SWATCH};'
        f'background-color:{colour}"></span>{html.escape(share.name)} '
        f"{as_duration(share.seconds)} ({share.seconds / whole:.0%})</span> "
        for share, colour in seen
    )
    return (
        f'<div role="img" aria-label="{html.escape(described)}" style="{_BAR}">{bar}</div>'
        f'<div style="{_FAINT}">{legend}</div>'
    )

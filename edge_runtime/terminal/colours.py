"""Colours and weights of text (ECMA-48, SGR), and whether a stream may have them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

__all__ = ["PLAIN", "Palette", "palette_for", "shows_colours"]

# Around what takes no room in a prompt, so that readline counts its columns rightly.
_INVISIBLE = ("\x01", "\x02")


@dataclass(frozen=True)
class Palette:
    """How text is set off.

    Attributes:
        coloured: Whether it is at all.
    """

    coloured: bool

    def notice(self, text: str) -> str:
        """What the program says about itself: dim."""
        return self._painted("2", text)

    def trouble(self, text: str) -> str:
        """What went wrong: red."""
        return self._painted("31", text)

    def prompt(self, text: str) -> str:
        """Where the user types, for readline: bold."""
        if not self.coloured:
            return text
        begin, end = _INVISIBLE
        return f"{begin}\x1b[1m{end}{text}{begin}\x1b[0m{end}"

    def _painted(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.coloured else text


PLAIN = Palette(coloured=False)


def palette_for(stream: IO[str], environment: Mapping[str, str] = os.environ) -> Palette:
    """Colours for a stream that may have them, none for others."""
    return Palette(shows_colours(stream, environment))


def shows_colours(stream: IO[str], environment: Mapping[str, str] = os.environ) -> bool:
    """Whether text on a stream may be coloured: a terminal whose user has not said no.

    See https://no-color.org for ``NO_COLOR``.
    """
    plain = environment.get("NO_COLOR") or environment.get("TERM", "dumb") == "dumb"
    return stream.isatty() and not plain

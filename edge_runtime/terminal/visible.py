"""What a model says, fit to be shown on a terminal."""

from __future__ import annotations

from typing import IO, Final

__all__ = ["visible_on"]

_REPLACEMENT: Final = "\ufffd"
# C0 and C1 (ECMA-48) but for tabs and line feeds. What begins a line anew shows nothing of its own.
_SHOWN: Final = {
    **dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], _REPLACEMENT),
    ord("\t"): "\t",
    ord("\n"): "\n",
    ord("\r"): "",
}


def visible_on(stream: IO[str], text: str) -> str:
    """A text as a stream should get it: as it is, but for terminals without control characters.

    A model, or who runs its trunk, may say escape sequences. Terminals would obey: they would move
    the cursor, so that something else seems to have been said, or fill the clipboard.
    """
    return text.translate(_SHOWN) if stream.isatty() else text

"""Stop strings: ending a text where one of them appears, across the borders of its pieces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lambda_split.errors import UsageError

__all__ = ["Emitted", "StopMatcher"]


@dataclass(frozen=True)
class Emitted:
    """What may be shown after one more piece of text.

    Attributes:
        text: Text that no stop string can reach any more; may be empty.
        matched: The stop string that ended the text.
    """

    text: str
    matched: str | None


class StopMatcher:
    """Passes text on until a stop string is complete.

    The first stop string to be complete wins, the longest of those complete at the same character;
    the text ends before it. That rule needs no look-ahead, so neither where the pieces are cut nor
    waiting for a longer string changes the outcome. Text that may be the beginning of a stop string
    is held back. Each character is read once (Knuth, Morris and Pratt, 1977).

    Attributes:
        matched: The stop string that ended the text, or None.

    Raises:
        UsageError: a stop string is empty or not a string.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        if isinstance(stop, str) or not isinstance(stop, Iterable):
            raise UsageError(f"stop must be a sequence of strings, not {stop!r}")
        for item in stop:
            if not isinstance(item, str) or not item:
                raise UsageError(f"a stop string must be a non-empty string, not {item!r}")
        self.matched: str | None = None
        # Longest first, so that the first found complete is the longest.
        self._stops = sorted(set(stop), key=len, reverse=True)
        self._borders = [_borders(item) for item in self._stops]
        # How many characters of each stop string the text ends with; _held ends with the longest.
        self._progress = [0] * len(self._stops)
        self._held = ""

    def push(self, text: str) -> Emitted:
        """Take the next piece of text; once a stop string matched, all further text is dropped."""
        if self.matched is not None:
            return Emitted("", self.matched)
        held = self._held + text
        for place, character in enumerate(text, start=len(self._held) + 1):
            for index, item in enumerate(self._stops):
                borders, done = self._borders[index], self._progress[index]
                while done and item[done] != character:
                    done = borders[done - 1]
                done += item[done] == character
                if done == len(item):
                    self.matched, self._held = item, ""
                    return Emitted(held[: place - done], item)
                self._progress[index] = done
        keep = max(self._progress, default=0)
        shown = len(held) - keep
        self._held = held[shown:]
        return Emitted(held[:shown], None)

    def flush(self) -> str:
        """What was held back, now that no more text comes."""
        rest, self._held = self._held, ""
        self._progress = [0] * len(self._stops)
        return rest


def _borders(text: str) -> list[int]:
    """For each prefix of ``text``, the length of its longest proper prefix that is also its end."""
    borders = [0] * len(text)
    length = 0
    for place in range(1, len(text)):
        while length and text[place] != text[length]:
            length = borders[length - 1]
        length += text[place] == text[length]
        borders[place] = length
    return borders

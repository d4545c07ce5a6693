"""From typed lines to entries: a line is one, and there are ways to write several lines.

- a backslash at a line's end continues it on the next one;
- three quotes begin a block that ends with three quotes;
- a line editor may hand over several lines as one: what was pasted, or typed with Alt-Enter.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FENCE", "Entry", "EntryAssembler"]

FENCE = '"""'


@dataclass(frozen=True)
class Entry:
    """What the user entered.

    Attributes:
        text: One line or several, without white space around it.
        quoted: It stood in three quotes, so that it is a message whatever it begins with.
    """

    text: str
    quoted: bool = False

    @property
    def recalled(self) -> str:
        """What a line editor offers again: entered as it is, it means the same."""
        return f"/{self.text}" if self.quoted and self.text.startswith("/") else self.text


class EntryAssembler:
    """Puts the lines of one entry after another together."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._quoted = False

    @property
    def pending(self) -> bool:
        """Whether an entry has begun that has not ended."""
        return self._quoted or bool(self._lines)

    def add(self, line: str) -> Entry | None:
        """Take a line.

        Args:
            line: Without its line break; it may hold others.

        Returns:
            The entry that ends here, or None where it goes on.
        """
        if not self.pending and line.lstrip().startswith(FENCE):
            self._quoted = True
            line = line.lstrip().removeprefix(FENCE)
        if self._quoted:
            ends = line.rstrip().endswith(FENCE)
            self._lines.append(line.rstrip().removesuffix(FENCE) if ends else line)
            return self._taken() if ends else None
        if line.endswith("\\"):
            self._lines.append(line.removesuffix("\\"))
            return None
        self._lines.append(line)
        return self._taken()

    def finish(self) -> Entry | None:
        """Input has ended: the entry that has begun, or None where there is none."""
        return self._taken() if self.pending else None

    def clear(self) -> None:
        """Forget the entry that has begun."""
        self._lines.clear()
        self._quoted = False

    def _taken(self) -> Entry:
        entry = Entry("\n".join(self._lines).strip(), self._quoted)
        self.clear()
        return entry

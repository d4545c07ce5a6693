"""Reading lines: from a person at a terminal, with the system's line editor, or from a pipe."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Protocol

from edge_runtime.terminal.colours import Palette
from edge_runtime.terminal.slash import COMMANDS
from lambda_split.errors import UsageError

__all__ = ["EditedLines", "LineSource", "PlainLines", "check_text", "load_editor"]

_PROMPT = "> "
_MORE = ". "


class LineSource(Protocol):
    """Where lines come from."""

    def read(self, *, continuing: bool) -> str:
        """The next line, without its line break.

        Args:
            continuing: It belongs to an entry that has begun.

        Raises:
            EOFError: there is none.
            UsageError: it is no text.
        """
        ...

    def typed(self) -> str:
        """What stood in the line when reading was interrupted, as far as that is known."""
        ...

    def remember(self, entry: str) -> None:
        """Offer an entry again."""
        ...


class PlainLines:
    """Lines of a pipe, of a file, or of a terminal without a line editor.

    Args:
        prompt: Ask on stderr: it is a person who types.
    """

    def __init__(self, *, prompt: bool) -> None:
        self._prompt = prompt
        if isinstance(sys.stdin, io.TextIOWrapper):
            # Else one line that is no text would take with it all that was read ahead.
            sys.stdin.reconfigure(errors="surrogateescape")

    def read(self, *, continuing: bool) -> str:
        """See :meth:`LineSource.read`."""
        if self._prompt:
            sys.stderr.write(_MORE if continuing else f"\n{_PROMPT}")
            sys.stderr.flush()
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError as error:
            raise UsageError("what was entered is not UTF-8 text") from error
        if not line:
            raise EOFError
        return check_text(line.removesuffix("\n"))

    def typed(self) -> str:
        """See :meth:`LineSource.typed`; a terminal shows what it was, and has forgotten it."""
        return ""

    def remember(self, entry: str) -> None:
        """See :meth:`LineSource.remember`; there is nobody to offer it to."""


class EditedLines:
    """Lines of a terminal, edited with readline.

    Tab completes slash commands, Up and Ctrl-R find earlier entries, what is pasted is one entry,
    and Alt-Enter begins another line of it.

    Args:
        editor: The ``readline`` module, which :func:`load_editor` gives.
        palette: How the prompt is set off.
        earlier: Entries to offer, oldest first.
    """

    def __init__(self, editor: ModuleType, palette: Palette, earlier: Sequence[str] = ()) -> None:
        self._editor = editor
        self._palette = palette
        editor.set_auto_history(False)  # entries are remembered, not their lines
        editor.set_completer(_completion)
        editor.set_completer_delims(" \t\n")
        if "libedit" in (editor.__doc__ or ""):
            editor.parse_and_bind("bind ^I rl_complete")
        else:
            editor.parse_and_bind("tab: complete")
            editor.parse_and_bind("set enable-bracketed-paste on")
            # Quoted insert of a line feed: Alt-Enter, as terminals send it.
            for key in (r"\e\C-m", r"\e\C-j"):
                editor.parse_and_bind(rf'"{key}": "\C-v\C-j"')
        for entry in earlier:
            self.remember(entry)

    def read(self, *, continuing: bool) -> str:
        """See :meth:`LineSource.read`."""
        if not continuing:
            sys.stdout.write("\n")
        try:
            return check_text(input(self._palette.prompt(_MORE if continuing else _PROMPT)))
        except UnicodeDecodeError as error:
            raise UsageError("what was entered is not UTF-8 text") from error

    def typed(self) -> str:
        """See :meth:`LineSource.typed`."""
        typed: str = self._editor.get_line_buffer()
        return typed

    def remember(self, entry: str) -> None:
        """See :meth:`LineSource.remember`; what the locale cannot say is not offered."""
        with contextlib.suppress(ValueError):
            self._editor.add_history(entry)


def load_editor() -> ModuleType | None:
    """The system's line editor, where Python was built with one and it has a terminal to use."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    try:
        import readline
    except ImportError:
        return None
    return readline


def check_text(text: str) -> str:
    """The text, where it can be one.

    Raises:
        UsageError: it holds bytes that are no UTF-8, which Python smuggles through as surrogates.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError("what was entered is not UTF-8 text") from error
    return text


def _completion(word: str, number: int) -> str | None:
    """Readline asks for the first completion, the second … until there is none."""
    found = [f"/{name}" for name in COMMANDS if word and f"/{name}".startswith(word)]
    return found[number] if number < len(found) else None

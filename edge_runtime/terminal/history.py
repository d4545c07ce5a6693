"""What was entered in earlier chats, in a file that only its owner can read.

A JSON string a line, since entries may have several lines. It is appended to, so that chats at the
same time do not lose each other's, and cut back when it has grown to twice what is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping

__all__ = ["ChatHistory", "history_path"]

_KEPT = 1000  # entries
_MAX_CHARACTERS = 16_384  # of one entry; a longer one is not kept
_MAX_BYTES = 16 << 20  # of the file: the end of a larger one is read


def history_path(environment: Mapping[str, str] = os.environ) -> pathlib.Path:
    """Where the history is: in the user's folder for state that outlives a program.

    See the XDG Base Directory Specification for ``XDG_STATE_HOME``; a relative path counts as none.

    Raises:
        RuntimeError: the user has no home.
    """
    folder = pathlib.Path(environment.get("XDG_STATE_HOME", ""))
    if not folder.is_absolute():
        folder = pathlib.Path.home() / ".local" / "state"
    return folder / "lambda-split" / "chat_history"


class ChatHistory:
    """Entries of a user's chats.

    Args:
        path: The file; it and its folder are made when there is something to keep.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._last: str | None = None

    @property
    def path(self) -> pathlib.Path:
        """The file."""
        return self._path

    def load(self) -> list[str]:
        """The entries, oldest first; lines that are none are passed over.

        Raises:
            OSError: the file is there and cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, size - _MAX_BYTES))  # may begin within a line: that one is none
                lines = file.read(_MAX_BYTES).splitlines()
        except FileNotFoundError:
            return []
        entries = [entry for line in lines if (entry := _entry(line)) is not None]
        if len(lines) > 2 * _KEPT or size > _MAX_BYTES:
            self._replace(entries[-_KEPT:])
        self._last = entries[-1] if entries else None
        return entries[-_KEPT:]

    def append(self, entry: str) -> None:
        """Keep an entry, unless it is the last one once more.

        Raises:
            OSError: the file cannot be written.
        """
        if entry == self._last or len(entry) > _MAX_CHARACTERS:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # of a file that is there already, too
            line = _line(entry)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # the last line was broken off, by a full disk for example
            os.write(descriptor, line)  # at once: another chat may write as well
        finally:
            os.close(descriptor)
        self._last = entry

    def _replace(self, entries: list[str]) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123  # mkstemp makes it private
                file.writelines(map(_line, entries))
            pathlib.Path(name).replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                pathlib.Path(name).unlink()
            raise


def _line(entry: str) -> bytes:
    return json.dumps(entry).encode("ascii") + b"\n"


def _entry(line: bytes) -> str | None:
    """The entry that a line holds; None for what none was, or no line editor could take."""
    try:
        entry = json.loads(line)
        if not isinstance(entry, str) or "\0" in entry:
            return None
        entry.encode("utf-8")  # JSON can say surrogates, too
    except (ValueError, RecursionError):
        return None
    return entry

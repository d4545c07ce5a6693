"""The log on stderr: lines for people, or JSON objects; from the same calls.

A call may give fields beside its sentence, ``extra=fields(session=…, code=…)``. Whatever comes from
a device stays on the line of its call: control characters are escaped.

A log that cannot be written (disk full, its reader gone, or not reading) must not take the service
down or hold it up: lines then are lost, and counted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

__all__ = ["JsonLines", "StderrHandler", "TextLines", "fields", "log_to_stderr"]

_STDERR: Final = 2
_MAX_WAITING: Final = 1000  # lines
_MAX_CHARACTERS: Final = 16_384  # of one line
_GOODBYE_S: Final = 1.0
_FIELDS: Final = "lambda_split_fields"


def fields(**values: str | float | bool | None) -> dict[str, object]:
    """What a log call says beside its sentence, for its ``extra``."""
    return {_FIELDS: values}


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = getattr(record, _FIELDS, {})
    return found


class TextLines(logging.Formatter):
    """``TIME LEVEL sentence key=value …``; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """See :meth:`logging.Formatter.format`."""
        parts = [_timestamp(record), record.levelname, _escaped(record.getMessage())]
        parts += [f"{key}={_word(value)}" for key, value in _fields_of(record).items()]
        line = " ".join(parts)[:_MAX_CHARACTERS]
        trace = _traceback(self, record)
        # A traceback ends in the error's own words, which may come from anywhere.
        return "\n".join([line, *(f"  | {_escaped(row)}" for row in trace.splitlines())])


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the call's fields, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """See :meth:`logging.Formatter.format`."""
        told: dict[str, Any] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_MAX_CHARACTERS],
        }
        told |= {key: value for key, value in _fields_of(record).items() if key not in told}
        if trace := _traceback(self, record):
            told["traceback"] = trace
        return json.dumps(told, default=str)


def _timestamp(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    return formatter.formatException(record.exc_info)[-_MAX_CHARACTERS:]


def _escaped(text: str) -> str:
    """Without anything that could end the line or move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _word(value: object) -> str:
    text = str(value)
    plain = text and text.isprintable() and not set(text) & set(" \"'=")
    return text if plain else json.dumps(text)


class StderrHandler(logging.Handler):
    """Writes lines to a file descriptor, in a thread of its own.

    Args:
        descriptor: Where to; not closed.
        on_lost: Called for each line that is lost, from any thread.

    Attributes:
        lost: How many were.
    """

    def __init__(
        self, descriptor: int = _STDERR, *, on_lost: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self.lost = 0
        self._descriptor = descriptor
        self._on_lost = on_lost
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_MAX_WAITING)
        # A daemon: one that hangs in a pipe that nobody reads must not keep the process.
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """See :meth:`logging.Handler.emit`; neither raises nor waits."""
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
            self._waiting.put_nowait(line)
        except Exception:  # noqa: BLE001 - a log call must not fail, whatever it is given
            self._lose()

    def close(self) -> None:
        """Write what waits, for a moment; then let go."""
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=_GOODBYE_S)
        self._thread.join(_GOODBYE_S)
        super().close()

    def _write_all(self) -> None:
        while (line := self._waiting.get()) is not None:
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                self._lose()

    def _lose(self) -> None:
        self.lost += 1
        if self._on_lost is not None:
            self._on_lost()


@contextlib.contextmanager
def log_to_stderr(
    level: str, layout: str, *, on_lost: Callable[[], None] | None = None
) -> Iterator[StderrHandler]:
    """Send all logging to stderr inside a ``with`` block.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        layout: ``text`` or ``json``.
        on_lost: Called for each line that is lost, from any thread.
    """
    handler = StderrHandler(on_lost=on_lost)
    handler.setFormatter(JsonLines() if layout == "json" else TextLines())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(level.upper())
    try:
        yield handler
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        handler.close()

"""Lines that come in, as they are and as they should not be."""

from __future__ import annotations

import io
import types

import pytest

from edge_runtime.terminal.colours import PLAIN
from edge_runtime.terminal.lines import EditedLines, PlainLines
from lambda_split.errors import UsageError


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # as the locale has it
def test_a_line_that_is_no_text_costs_no_other(monkeypatch, errors) -> None:
    data = io.BytesIO(b"one\n\xff\xfe\n" + "Λ\nlast".encode())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(data, encoding="utf-8", errors=errors))
    lines = PlainLines(prompt=False)
    assert lines.read(continuing=False) == "one"
    with pytest.raises(UsageError, match="not UTF-8"):
        lines.read(continuing=False)
    assert [lines.read(continuing=False) for _ in range(2)] == ["Λ", "last"]
    with pytest.raises(EOFError):
        lines.read(continuing=False)


def test_what_the_line_editor_cannot_take_is_not_offered() -> None:
    offered = []

    def add_history(entry: str) -> None:
        entry.encode("latin-1")  # the locale's encoding
        offered.append(entry)

    def nothing(*_: object) -> None:
        """Nobody completes anything here."""

    editor = types.SimpleNamespace(
        add_history=add_history,
        set_auto_history=nothing,
        set_completer=nothing,
        set_completer_delims=nothing,
        parse_and_bind=nothing,
    )
    lines = EditedLines(editor, PLAIN, ["one", "Λ", "two"])
    lines.remember("“three”")
    lines.remember("four")
    assert offered == ["one", "two", "four"]

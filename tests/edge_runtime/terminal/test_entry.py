"""From lines to entries."""

from __future__ import annotations

import pytest

from edge_runtime.terminal.entry import Entry, EntryAssembler


def entries(*lines: str) -> list[Entry]:
    assembler = EntryAssembler()
    found = [entry for line in lines if (entry := assembler.add(line)) is not None]
    last = assembler.finish()
    return found if last is None else [*found, last]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Hello!"], [Entry("Hello!")]),
        (["  Hello!  "], [Entry("Hello!")]),
        (["one", "two"], [Entry("one"), Entry("two")]),
        ([""], [Entry("")]),
        (["one\\", "two"], [Entry("one\ntwo")]),
        (["one\\", "", "two"], [Entry("one"), Entry("two")]),
        (["a\\b"], [Entry("a\\b")]),
        (["pasted\nlines"], [Entry("pasted\nlines")]),
        (['"""', "one", "", "  two", '"""'], [Entry("one\n\n  two", quoted=True)]),
        (['"""one', 'two"""', "three"], [Entry("one\ntwo", quoted=True), Entry("three")]),
        (['"""one"""'], [Entry("one", quoted=True)]),
        (['"""', "one\\", '"""'], [Entry("one\\", quoted=True)]),
        (['say """ aloud'], [Entry('say """ aloud')]),
        # The input ends within an entry.
        (["one\\"], [Entry("one")]),
        (['"""', "one"], [Entry("one", quoted=True)]),
    ],
)
def test_lines_become_entries(lines, expected) -> None:
    assert entries(*lines) == expected


def test_an_entry_that_has_begun_can_be_forgotten() -> None:
    assembler = EntryAssembler()
    assert assembler.add('"""one') is None
    assert assembler.pending
    assembler.clear()
    assert not assembler.pending
    assert assembler.add("two") == Entry("two")
    assert assembler.finish() is None


def test_what_is_recalled_means_the_same() -> None:
    assert Entry("/help").recalled == "/help"
    assert Entry("/help", quoted=True).recalled == "//help"
    assert Entry("one\ntwo", quoted=True).recalled == "one\ntwo"

"""Who gets colours."""

from __future__ import annotations

import io

import pytest

from edge_runtime.terminal.colours import PLAIN, Palette, palette_for, shows_colours


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("environment", "stream", "expected"),
    [
        ({"TERM": "xterm-256color"}, Terminal(), True),
        ({"TERM": "xterm-256color"}, io.StringIO(), False),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, Terminal(), False),
        ({"TERM": "dumb"}, Terminal(), False),
        ({}, Terminal(), False),
    ],
)
def test_colours_are_for_terminals_that_want_them(environment, stream, expected):
    assert shows_colours(stream, environment) is expected


def test_plain_text_is_left_as_it_is():
    assert [PLAIN.notice("a"), PLAIN.trouble("b"), PLAIN.prompt("> ")] == ["a", "b", "> "]
    assert palette_for(io.StringIO(), {"TERM": "xterm"}) == PLAIN


def test_painted_text_ends_as_it_began():
    painted = Palette(coloured=True)
    assert painted.notice("a") == "\x1b[2ma\x1b[0m"
    # What has no width is marked, so that readline finds its column.
    assert painted.prompt("> ") == "\x01\x1b[1m\x02> \x01\x1b[0m\x02"

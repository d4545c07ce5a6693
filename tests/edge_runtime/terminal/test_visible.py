"""What of a text a terminal gets."""

from __future__ import annotations

import io

import pytest

from edge_runtime.terminal.visible import visible_on
from tests.edge_runtime.terminal.test_chatting import Screen


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Λ “quoted”\t\U0001f98a\n", "Λ “quoted”\t\U0001f98a\n"),
        ("\x1b[2Jgone", "\ufffd[2Jgone"),
        ("\x9b2J\x00\x7f\x08", "\ufffd2J\ufffd\ufffd\ufffd"),
        ("one\r\ntwo\rthree", "one\ntwothree"),
    ],
)
def test_control_characters_are_seen_and_not_obeyed(text, shown) -> None:
    assert visible_on(Screen(), text) == shown
    assert visible_on(io.StringIO(), text) == text

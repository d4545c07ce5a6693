"""Which entries are commands."""

from __future__ import annotations

import pytest

from edge_runtime.terminal.entry import Entry
from edge_runtime.terminal.slash import COMMANDS, SlashCommand, help_text, parse_entry
from lambda_split.errors import UsageError


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (Entry("Hello!"), "Hello!"),
        (Entry("/help"), SlashCommand("help")),
        (Entry("/save my chat.md"), SlashCommand("save", "my chat.md")),
        (Entry("/system   Be brief."), SlashCommand("system", "Be brief.")),
        (Entry("/system Be brief.\nBe kind."), SlashCommand("system", "Be brief.\nBe kind.")),
        (Entry("/system"), SlashCommand("system")),
        (Entry("//help"), "/help"),
        (Entry("// a comment"), "/ a comment"),
        (Entry("/help", quoted=True), "/help"),
        (Entry("/usr/bin has what?"), "/usr/bin has what?"),
        (Entry("/* C */"), "/* C */"),
        (Entry("/"), "/"),
        (Entry("a /help"), "a /help"),
    ],
)
def test_what_an_entry_is(entry, expected) -> None:
    assert parse_entry(entry) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/exit", "no command /exit"),
        ("/exit now", "/quit"),
        ("/reset now", "/reset stands alone"),
        ("/quit\nplease", "/quit stands alone"),
    ],
)
def test_what_is_nearly_a_command_is_not_said_to_the_model(text, words) -> None:
    with pytest.raises(UsageError, match=words):
        parse_entry(Entry(text))


def test_help_has_every_command() -> None:
    lines = help_text().splitlines()
    assert [line.split()[0] for line in lines[: len(COMMANDS)]] == [f"/{name}" for name in COMMANDS]
    assert max(map(len, lines)) <= 100

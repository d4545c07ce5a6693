"""Slash commands of a chat: what they are called, and which one an entry is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from edge_runtime.terminal.entry import Entry
from lambda_split.errors import UsageError

__all__ = ["COMMANDS", "SlashCommand", "help_text", "parse_entry"]

# `/usr/bin has …` and `/* … */` are messages.
_COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)


@dataclass(frozen=True)
class _Help:
    argument: str
    summary: str


COMMANDS: Final = {
    "system": _Help("[TEXT]", "show the system message, or set it; '-' removes it"),
    "regenerate": _Help("", "answer the last message again (greedily it is the same answer)"),
    "save": _Help("[FILE]", "write the conversation to a new file, .md or .json"),
    "stats": _Help("", "what the last answer cost: tokens/s, milliseconds in each part, bytes"),
    "reset": _Help("", "begin a new conversation; the system message stays"),
    "help": _Help("", "these lines"),
    "quit": _Help("", "end, as Ctrl-D does"),
}


@dataclass(frozen=True)
class SlashCommand:
    """A command that was entered.

    Attributes:
        name: A key of :data:`COMMANDS`.
        argument: What stands behind it, ``""`` for nothing.
    """

    name: str
    argument: str = ""


def parse_entry(entry: Entry) -> SlashCommand | str:
    """The command that an entry is, or else the message.

    ``//`` begins a message with one slash; in three quotes everything is a message.

    Raises:
        UsageError: there is no such command, or it takes no argument.
    """
    text = entry.text
    if entry.quoted or not text.startswith("/"):
        return text
    if text.startswith("//"):
        return text[1:]
    match = _COMMAND.fullmatch(text)
    if match is None:
        return text
    name, argument = match[1], (match[2] or "").strip()
    if name not in COMMANDS:
        known = " ".join(f"/{one}" for one in COMMANDS)
        raise UsageError(f"no command /{name}: {known} (// begins a message with a slash)")
    if argument and not COMMANDS[name].argument:
        raise UsageError(f"/{name} stands alone: // begins a message with a slash")
    return SlashCommand(name, argument)


def help_text() -> str:
    """The commands and the keys, a line each."""
    rows = [(f"/{name} {one.argument}".rstrip(), one.summary) for name, one in COMMANDS.items()]
    rows += [
        ('"""', "begins and ends a message of several lines"),
        ("\\", "at a line's end: the message goes on; Alt-Enter does so within a line"),
        ("Ctrl-C", "stops the answer, or forgets what was typed; twice at an empty prompt ends"),
        ("Up, Ctrl-R", "earlier messages, and a search in them"),
    ]
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"  {left:{width}}  {right}" for left, right in rows)

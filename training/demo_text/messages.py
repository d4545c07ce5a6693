"""What a corpus is made of: messages, exchanges and documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat."""

    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        """The message in the form that chat templates take."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the user says and what the assistant answers."""

    user: str
    assistant: str

    def messages(self) -> tuple[Message, Message]:
        """The exchange as two messages."""
        return Message("user", self.user), Message("assistant", self.assistant)


@dataclass(frozen=True, slots=True)
class Document:
    """One document: a chat, or plain text without chat markup.

    Exactly one of ``messages`` and ``text`` is non-empty. ``combinations`` names the (animal,
    thing, place) of each story in it, so that the held-out split can be checked.
    """

    kind: str
    messages: tuple[Message, ...] = ()
    text: str = ""
    combinations: tuple[tuple[str, str, str], ...] = ()

"""Conversations as files: Markdown for people, JSON for programs."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import pathlib

import msgspec

from edge_runtime.conversation import Conversation
from lambda_split.errors import OutputNotWritable, UsageError

__all__ = ["as_json", "as_markdown", "default_name", "save_transcript"]

_TITLES = {"system": "System", "user": "You", "assistant": "Model"}


def default_name(now: dt.datetime) -> str:
    """What a transcript is called where the user names none."""
    return f"chat-{now:%Y%m%d-%H%M%S}.md"


def as_markdown(conversation: Conversation, *, model: str, now: dt.datetime) -> str:
    """A heading for each message, and its text as it is."""
    parts = [f"# A chat with {model}", f"{now:%Y-%m-%d %H:%M}"]
    for message in conversation.messages():
        parts += [f"## {_TITLES[message.role]}", message.content.strip("\n")]
    return "\n\n".join(parts) + "\n"


def as_json(conversation: Conversation, *, model: str, now: dt.datetime) -> str:
    """One object: ``model``, ``saved`` (ISO 8601), ``messages`` with ``role`` and ``content``."""
    told = {
        "model": model,
        "saved": now.isoformat(timespec="seconds"),
        "messages": [
            {"role": message.role, "content": message.content}
            for message in conversation.messages()
        ],
    }
    return msgspec.json.format(msgspec.json.encode(told), indent=2).decode() + "\n"


_FORMATS = {".md": as_markdown, ".json": as_json}


def save_transcript(
    name: str, conversation: Conversation, *, model: str, now: dt.datetime
) -> pathlib.Path:
    """Write a conversation to a new file that only its owner can read.

    Args:
        name: The file, ending with ``.md`` or ``.json``; ``""`` takes :func:`default_name`. ``~``
            is the user's home.
        conversation: What to write.
        model: The model's name.
        now: The time, with its zone.

    Returns:
        Where it was written.

    Raises:
        UsageError: the name's ending is another one.
        OutputNotWritable: the file exists, or cannot be written; nothing is left behind then.
    """
    try:
        path = pathlib.Path(name or default_name(now)).expanduser()
    except RuntimeError as error:  # a home of nobody
        raise OutputNotWritable(name, str(error)) from error
    write = _FORMATS.get(path.suffix.lower())
    if write is None:
        raise UsageError(f"{path}: give a name that ends with {' or '.join(_FORMATS)}")
    text = write(conversation, model=model, now=now)
    try:
        # Prompts and answers: for nobody else. And nothing that is there is written over.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise OutputNotWritable(str(path), "it exists, choose another name") from error
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise OutputNotWritable(str(path), _reason(error)) from error
    try:
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  # the descriptor carries the mode
            file.write(text)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise OutputNotWritable(str(path), _reason(error)) from error
    return path


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)

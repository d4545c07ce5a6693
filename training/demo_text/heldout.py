"""The held-out documents that are shipped beside the model."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Final

from .corpus import Split, documents
from .messages import Document, Message

#: Documents of each held-out split; together they stay under 60 KB.
_EACH: Final = 26
#: Another seed than the one that perplexity is measured with during training.
_SEED: Final = 1


def held_out_file() -> str:
    """Held-out documents as JSON lines, chats as messages and plain text as text."""
    splits: tuple[Split, ...] = ("seen", "unseen")
    lines = [
        json.dumps(_as_json(split, document), ensure_ascii=False)
        for split in splits
        for document in islice(documents(split, _SEED), _EACH)
    ]
    return "\n".join(lines) + "\n"


def read_held_out(path: Path) -> list[Document]:
    """Read the documents back."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        messages = tuple(Message(m["role"], m["content"]) for m in entry.get("messages", ()))
        found.append(Document(entry["kind"], messages=messages, text=entry.get("text", "")))
    return found


def _as_json(split: Split, document: Document) -> dict[str, object]:
    entry: dict[str, object] = {"split": split, "kind": document.kind}
    if document.text:
        return entry | {"text": document.text}
    return entry | {"messages": [message.as_dict() for message in document.messages]}

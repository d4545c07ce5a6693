"""The text of a single token, as it stands inside a text, and its bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_runtime.tokenizer import Tokenizer

__all__ = ["TokenText", "text_of_token"]

_REPLACEMENT = "\ufffd"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # how SentencePiece names its bytes


@dataclass(frozen=True)
class TokenText:
    r"""What one token stands for.

    Attributes:
        text: Its characters; where its bytes are no whole ones, the bytes as ``\xNN``.
        data: Its bytes; None where the tokenizer does not tell them.
    """

    text: str
    data: bytes | None


def text_of_token(tokenizer: Tokenizer, token_id: int) -> TokenText:
    """The text of a token.

    It is what the token adds when it stands twice: decoders drop the space before a text's first
    word.

    Args:
        tokenizer: Knows the token, or has no text for it.
        token_id: At least 0.
    """
    once = tokenizer.decode([token_id], skip_special_tokens=False)
    twice = tokenizer.decode([token_id, token_id], skip_special_tokens=False)
    added = twice[len(once) :] if twice.startswith(once) else once
    if _REPLACEMENT not in added:
        return TokenText(added, added.encode("utf-8"))
    data = _bytes_named(tokenizer.name_of(token_id) or "")
    if data is None:
        return TokenText(added, None)
    try:
        return TokenText(data.decode("utf-8"), data)
    except UnicodeDecodeError:
        return TokenText("".join(f"\\x{byte:02x}" for byte in data), data)


def _bytes_named(name: str) -> bytes | None:
    """The bytes that a token's name in the vocabulary stands for."""
    if match := _BYTE_TOKEN.fullmatch(name):
        return bytes([int(match[1], 16)])
    if name and all(character in _BYTE_OF for character in name):
        return bytes(_BYTE_OF[character] for character in name)
    return None


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes for U+0100 and on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {
        **{chr(byte): byte for byte in printable},
        **{chr(0x100 + place): byte for place, byte in enumerate(others)},
    }


_BYTE_OF = _byte_alphabet()

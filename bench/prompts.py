"""A prompt of any length, as text and as tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

__all__ = ["BenchPrompt", "make_prompt"]

_TEXT: Final = (
    "The ferry left the harbour at ten past seven. On deck stood a woman with a basket of apples "
    "and a boy who counted the gulls. There were eleven of them, he said, and one that could not "
    "make up its mind. By noon the island was in sight: a lighthouse, three houses, and a garden "
    "wall so long that nobody had ever walked all the way around it. "
)


class BenchPrompt(msgspec.Struct, frozen=True):
    """What generations continue.

    Attributes:
        token_ids: As many as the longest case needs; shorter ones take the first of them.
        decode: Makes text of token ids.
    """

    token_ids: tuple[int, ...]
    decode: Callable[[Sequence[int]], str]

    def text(self, tokens: int) -> str:
        """The first tokens as text, never empty where they are a start token only.

        A tokenizer may make one or two more or fewer of it again.
        """
        return self.decode(self.token_ids[:tokens]) or _TEXT.split()[0]


def make_prompt(
    encode: Callable[[str], Sequence[int]], decode: Callable[[Sequence[int]], str], tokens: int
) -> BenchPrompt:
    """A text, repeated until it has enough tokens.

    Args:
        encode: Makes token ids of text, at least one for each of its words.
        decode: The way back.
        tokens: How many are wanted.
    """
    words = len(_TEXT.split())
    ids = encode(_TEXT * (tokens // words + 1))
    return BenchPrompt(tuple(ids[:tokens]), decode)

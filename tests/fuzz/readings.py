"""Bytes that a fuzzer chooses, read as numbers, choices and pieces of data.

The same reading serves a coverage-guided fuzzer, a random one and the corpus, so that what one of
them finds is found again by the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["Reading"]

_T = TypeVar("_T")


class Reading:
    """A cursor over bytes; what is asked for beyond their end is zero or empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether there is more."""
        return self._at < len(self._data)

    def number(self, size: int) -> int:
        """An unsigned number of ``size`` bytes, little-endian."""
        return int.from_bytes(self.take(size), "little")

    def below(self, limit: int) -> int:
        """A number below ``limit``, which is at most 256."""
        return self.number(1) % limit

    def choice(self, options: Sequence[_T]) -> _T:
        """One of at most 256 options."""
        return options[self.below(len(options))]

    def take(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        piece = self._data[self._at : self._at + size]
        self._at += size
        return piece

    def piece(self) -> bytes:
        """A length of two bytes, and as many bytes as that."""
        return self.take(self.number(2))

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))

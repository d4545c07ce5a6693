"""Numbers of things, in words."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str) -> str:
    """``1 token``, ``2 tokens``: a noun in the singular, made a plural by an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

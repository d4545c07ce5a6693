"""The root of the error tree, and what belongs to no side."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LambdaSplitError", "ProcessFailed"]


class LambdaSplitError(Exception):
    """Base of all errors that Λ-Split raises on purpose."""


@dataclass(eq=False)
class ProcessFailed(LambdaSplitError):
    """A process that a command started did not do its part; its own message stands above."""

    what: str

    def __str__(self) -> str:
        return f"{self.what} failed, see its message above"

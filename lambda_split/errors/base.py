"""The root of the error tree."""

from __future__ import annotations

__all__ = ["LambdaSplitError"]


class LambdaSplitError(Exception):
    """Base of all errors that Λ-Split raises on purpose."""

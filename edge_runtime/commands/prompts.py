"""Prompts of a command line: what was typed, or what comes in by stdin."""

from __future__ import annotations

import sys

from lambda_split.errors import UsageError

__all__ = ["read_prompt"]

_MAX_STDIN_CHARS = 16 * 1024 * 1024


def read_prompt(text: str) -> str:
    """A prompt argument's text; ``-`` stands for what stdin holds.

    Raises:
        UsageError: stdin holds more than 16 Mi characters.
    """
    if text != "-":
        return text
    text = sys.stdin.read(_MAX_STDIN_CHARS + 1)
    if len(text) > _MAX_STDIN_CHARS:
        raise UsageError(f"the prompt on stdin exceeds {_MAX_STDIN_CHARS} characters")
    return text.removesuffix("\n")  # the one that `echo` and editors add

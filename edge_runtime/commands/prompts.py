"""Prompts of a command line: what was typed, or what comes in by stdin."""

from __future__ import annotations

import sys

from edge_runtime.terminal.lines import check_text
from lambda_split.errors import UsageError

__all__ = ["read_prompt"]

_MAX_STDIN_CHARS = 16 * 1024 * 1024


def read_prompt(text: str | None) -> str:
    """A prompt argument's text; ``-`` stands for what stdin holds, and so does none.

    Raises:
        UsageError: there is none, and nobody pipes one in; or stdin holds more than 16 Mi
            characters, or no text.
    """
    if text is None and sys.stdin.isatty():
        raise UsageError("give --prompt TEXT, or pipe the prompt into stdin")
    if text not in {None, "-"}:
        return check_text(text or "")
    try:
        text = sys.stdin.read(_MAX_STDIN_CHARS + 1)
    except UnicodeDecodeError as error:
        raise UsageError("the prompt on stdin is not UTF-8 text") from error
    if len(text) > _MAX_STDIN_CHARS:
        raise UsageError(f"the prompt on stdin exceeds {_MAX_STDIN_CHARS} characters")
    return check_text(text.removesuffix("\n"))  # the one that `echo` and editors add

"""Drawing a session's split."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from lambda_split.split import Split

__all__ = ["draw_split"]


def draw_split(choices: Sequence[Split]) -> Split:
    """One of a bundle's splits, each as likely as the others.

    It comes from the system's random source: no seed of a program tells it or repeats it.

    Args:
        choices: At least one.
    """
    return secrets.choice(choices)

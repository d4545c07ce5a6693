"""Reading tokens and certificates again while the server runs."""

from __future__ import annotations

import logging
from typing import Protocol

from lambda_split.errors import LambdaSplitError

__all__ = ["Reloadable", "reload_all"]

_logger = logging.getLogger(__name__)


class Reloadable(Protocol):
    """Something that was read from files."""

    def reload(self) -> None:
        """Read them again, or raise a typed error and leave everything as it was."""


def reload_all(*parts: Reloadable | None) -> bool:
    """Reload what there is; what cannot be read stays as it was, and the log says so.

    Args:
        parts: None where the server runs without it.

    Returns:
        Whether all could be read.
    """
    good = True
    for part in parts:
        if part is None:
            continue
        try:
            part.reload()
        except LambdaSplitError as error:
            # As a literal: a path may hold anything.
            _logger.error("reloading failed, the old one stays in use: %r", str(error))  # noqa: TRY400  # the sentence says it all; a traceback would hide it
            good = False
    return good

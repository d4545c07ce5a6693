"""Errors as the other side reads them."""

from __future__ import annotations

from lambda_split.errors import WireError
from lambda_split.wire.messages import ErrorMessage, parse_message, serialize_message

__all__ = ["serializes", "tells"]


def tells(text: str, error: WireError, sequence: int | None) -> None:
    """A message says to whom and why: who reads it has the same kind of error."""
    message = parse_message(text)
    assert isinstance(message, ErrorMessage)
    assert message.sequence == sequence
    assert type(message.to_error()) is type(error)


def serializes(error: WireError) -> None:
    """An error can be told the other side."""
    tells(serialize_message(ErrorMessage.from_error(error)), error, None)
    assert str(error)

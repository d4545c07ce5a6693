"""Errors in OpenAI's form, with the statuses that its clients turn into their own exceptions."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass
from typing import Final

from edge_runtime.api.replies import ErrorBody, ErrorReply
from lambda_split.errors import (
    ApiError,
    CapacityRefused,
    LambdaSplitError,
    LinkError,
    Overloaded,
    PictureImpossible,
    PromptTooLong,
    ProtocolError,
    Refused,
    RemoteError,
    ServerError,
    TlsError,
    TooManyConnections,
    UsageError,
    WireError,
)

__all__ = ["Failure", "failure_of"]

_logger = logging.getLogger(__name__)

_INVALID = "invalid_request_error"
_SERVER = "server_error"

# Of errors that are not the client's, the first that fits: the trunk's, or else the device's own.
_STATUSES: Final[tuple[tuple[tuple[type[LambdaSplitError], ...], int, str], ...]] = (
    ((CapacityRefused,), 503, "trunk_full"),
    ((LinkError, ServerError), 503, "trunk_unreachable"),
    ((Refused, ProtocolError, RemoteError, TlsError), 502, "trunk_refused"),
)


@dataclass(frozen=True)
class Failure:
    """What a client is told.

    Attributes:
        status: Of the HTTP response.
        reply: Its body, or the last event of a stream.
        retry_after_s: When to try again, where that may help.
    """

    status: int
    reply: ErrorReply
    retry_after_s: int | None = None


def failure_of(error: Exception, parameter: str | None = None) -> Failure:
    """What to tell a client of an error.

    Args:
        error: Any; one that is no client's fault is logged.
        parameter: The one that holds the prompt, where a usage error can be about it only.
    """
    if isinstance(error, ApiError):
        again = None
        if isinstance(error, Overloaded | TooManyConnections):
            again = error.retry_after_s
        return _failure(
            error.status,
            error.kind,
            str(error),
            error.code,
            parameter=error.parameter,
            retry_after_s=again,
        )
    if isinstance(error, PromptTooLong):
        return _failure(400, _INVALID, str(error), "context_length_exceeded", parameter=parameter)
    if isinstance(error, UsageError | PictureImpossible):
        code = "invalid_value" if parameter is None else "invalid_prompt"
        return _failure(400, _INVALID, str(error), code, parameter=parameter)
    _log(error)
    if not isinstance(error, LambdaSplitError):
        return _failure(500, _SERVER, "The server failed: its log says where", "internal_error")
    again = error.retry_after_s if isinstance(error, CapacityRefused) else None
    for kinds, status, code in _STATUSES:
        if isinstance(error, kinds):
            return _failure(status, _SERVER, str(error), code, retry_after_s=again)
    return _failure(500, _SERVER, str(error), "device_failed")


def _failure(
    status: int,
    kind: str,
    message: str,
    code: str | None,
    *,
    parameter: str | None = None,
    retry_after_s: int | None = None,
) -> Failure:
    body = ErrorBody(message=message, type=kind, param=parameter, code=code)
    return Failure(status, ErrorReply(body), retry_after_s)


def _log(error: Exception) -> None:
    """What failed, and where; its sentence only where it is the trunk's: others may quote texts."""
    if isinstance(error, LinkError | TlsError | WireError):
        _logger.warning("%s: %s", type(error).__name__, error)
    else:
        where = "".join(traceback.format_tb(error.__traceback__))
        _logger.error("%s, at\n%s", type(error).__name__, where.rstrip())

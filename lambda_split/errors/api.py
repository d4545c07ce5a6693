"""What the local API refuses, in words for the program that asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lambda_split.errors.base import LambdaSplitError

__all__ = [
    "ApiError",
    "BodyInvalid",
    "BodyTooLarge",
    "BodyTooSlow",
    "BodyTypeUnsupported",
    "HostRefused",
    "KeyRefused",
    "ModelUnknown",
    "OriginRefused",
    "Overloaded",
    "ParameterInvalid",
    "ParameterUnsupported",
    "Stopping",
    "TooManyConnections",
]


class ApiError(LambdaSplitError):
    """A request to the local API that is not answered.

    Attributes:
        status: Of the HTTP response.
        kind: OpenAI's ``type`` of the error.
        code: OpenAI's ``code`` of it.
    """

    status: ClassVar[int] = 400
    kind: ClassVar[str] = "invalid_request_error"
    code: ClassVar[str | None] = None

    @property
    def parameter(self) -> str | None:
        """The request's parameter that is to blame, where it is one."""
        return None


@dataclass(eq=False)
class ParameterInvalid(ApiError):
    """A parameter is missing, of another type, or out of its range."""

    code: ClassVar[str | None] = "invalid_value"
    name: str
    reason: str

    @property
    def parameter(self) -> str | None:
        """The one that is to blame."""
        return self.name

    def __str__(self) -> str:
        return f"Invalid '{self.name}': {self.reason}"


@dataclass(eq=False)
class ParameterUnsupported(ApiError):
    """A parameter that would change the answer, and that this server cannot honour."""

    code: ClassVar[str | None] = "unsupported_parameter"
    name: str
    reason: str

    @property
    def parameter(self) -> str | None:
        """The one that is to blame."""
        return self.name

    def __str__(self) -> str:
        return f"Unsupported '{self.name}': {self.reason}"


@dataclass(eq=False)
class BodyInvalid(ApiError):
    """The request's body is no JSON object."""

    code: ClassVar[str | None] = "invalid_json"
    reason: str

    def __str__(self) -> str:
        return f"The body must be a JSON object: {self.reason}"


@dataclass(eq=False)
class BodyTypeUnsupported(ApiError):
    """The request does not say that its body is JSON."""

    status: ClassVar[int] = 415
    code: ClassVar[str | None] = "unsupported_media_type"

    def __str__(self) -> str:
        return "The body must be JSON, with the header 'Content-Type: application/json'"


@dataclass(eq=False)
class BodyTooLarge(ApiError):
    """The request's body is larger than the server reads."""

    status: ClassVar[int] = 413
    code: ClassVar[str | None] = "request_too_large"
    limit: int

    def __str__(self) -> str:
        return f"The body is larger than {self.limit:,} bytes"


@dataclass(eq=False)
class BodyTooSlow(ApiError):
    """The request's body did not come in time."""

    status: ClassVar[int] = 408
    code: ClassVar[str | None] = "request_timeout"
    seconds: float

    def __str__(self) -> str:
        return f"The body did not arrive within {self.seconds:g} s"


@dataclass(eq=False)
class KeyRefused(ApiError):
    """The request has no API key, or another one."""

    status: ClassVar[int] = 401
    code: ClassVar[str | None] = "invalid_api_key"

    def __str__(self) -> str:
        return "Wrong API key: send the one in --api-key-file, as 'Authorization: Bearer KEY'"


@dataclass(eq=False)
class HostRefused(ApiError):
    """The request came for a name that this server does not go by."""

    status: ClassVar[int] = 403
    code: ClassVar[str | None] = "host_not_allowed"

    def __str__(self) -> str:
        return "This server does not answer to that host name: allow it with --allowed-host"


@dataclass(eq=False)
class OriginRefused(ApiError):
    """A web page sent the request, and not one that may."""

    status: ClassVar[int] = 403
    code: ClassVar[str | None] = "origin_not_allowed"

    def __str__(self) -> str:
        return "Web pages may not use this server: allow a page's origin with --cors-origin"


@dataclass(eq=False)
class ModelUnknown(ApiError):
    """No model of that name for what was asked."""

    status: ClassVar[int] = 404
    code: ClassVar[str | None] = "model_not_found"
    served: tuple[str, ...]

    @property
    def parameter(self) -> str | None:
        """The one that is to blame."""
        return "model"

    def __str__(self) -> str:
        listed = ", ".join(map(repr, self.served)) or "none"
        return f"No such model for this route; served here: {listed}"


@dataclass(eq=False)
class Overloaded(ApiError):
    """All sessions are in use, and as many requests wait as may."""

    status: ClassVar[int] = 429
    kind: ClassVar[str] = "requests"
    code: ClassVar[str | None] = "rate_limit_exceeded"
    reason: str
    retry_after_s: int

    def __str__(self) -> str:
        return f"All sessions are in use ({self.reason}): try again in {self.retry_after_s} s"


@dataclass(eq=False)
class Stopping(ApiError):
    """The server was told to stop, and did not wait for this answer."""

    status: ClassVar[int] = 503
    kind: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = "server_stopping"

    def __str__(self) -> str:
        return "The server is stopping"


@dataclass(eq=False)
class TooManyConnections(ApiError):
    """More clients are connected than the server looks after."""

    status: ClassVar[int] = 503
    kind: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = "too_many_connections"
    limit: int
    retry_after_s: int

    def __str__(self) -> str:
        return (
            f"More than {self.limit} connections are open: close some, or try again in "
            f"{self.retry_after_s} s"
        )

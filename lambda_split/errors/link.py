"""The way to the server."""

from __future__ import annotations

from dataclasses import dataclass

from lambda_split.errors.base import LambdaSplitError

__all__ = ["AddressUnavailable", "ConnectionLost", "LinkError", "ServerUnreachable"]


class LinkError(LambdaSplitError):
    """The way to the server."""


@dataclass(eq=False)
class AddressUnavailable(LinkError):
    """The server cannot listen at an address."""

    address: str
    reason: str

    def __str__(self) -> str:
        return f"cannot listen on {self.address}: {self.reason}"


@dataclass(eq=False)
class ServerUnreachable(LinkError):
    """No connection within the allowed time."""

    url: str
    reason: str

    def __str__(self) -> str:
        return f"cannot reach {self.url}: {self.reason}"


@dataclass(eq=False)
class ConnectionLost(LinkError):
    """The connection broke (internal: the device replays) or replaying was given up."""

    reason: str

    def __str__(self) -> str:
        return f"the connection was lost: {self.reason}"

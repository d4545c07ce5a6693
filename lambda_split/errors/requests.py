"""A forward was rejected, or the server is in trouble."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lambda_split.errors.wire import WireError

__all__ = [
    "ChunkTooLong",
    "CodecOverflow",
    "InternalError",
    "NonFinite",
    "PictureImpossible",
    "PositionBeyondEnd",
    "PositionGap",
    "RequestError",
    "ServerDraining",
    "ServerError",
    "SessionEvicted",
    "StateMismatch",
]


class RequestError(WireError):
    """One forward was rejected; the session is as it was before it."""


@dataclass(eq=False)
class PositionGap(RequestError):
    """The chunk starts after the positions that the trunk holds."""

    code: ClassVar[str] = "position-gap"
    start: int
    length: int

    def __str__(self) -> str:
        return f"a chunk starts at position {self.start}, the trunk holds {self.length}"


@dataclass(eq=False)
class PositionBeyondEnd(RequestError):
    """The chunk ends after the session's last position."""

    code: ClassVar[str] = "position-beyond-end"
    end: int
    max_positions: int

    def __str__(self) -> str:
        return f"a chunk ends at position {self.end}, the session holds {self.max_positions}"


@dataclass(eq=False)
class ChunkTooLong(RequestError):
    """The chunk has no tokens, or more than a frame may carry, or asks for more than it has."""

    code: ClassVar[str] = "chunk-too-long"
    tokens: int
    limit: int

    def __str__(self) -> str:
        return f"a chunk of {self.tokens} tokens: between 1 and {self.limit} are allowed"


@dataclass(eq=False)
class StateMismatch(RequestError):
    """A picture's state has another number of tensors than its step needs."""

    code: ClassVar[str] = "state-mismatch"
    found: int
    expected: int

    def __str__(self) -> str:
        return f"a state of {self.found} tensors for a step that needs {self.expected}"


@dataclass(eq=False)
class PictureImpossible(RequestError):
    """The server cannot make this picture, or this step of it."""

    code: ClassVar[str] = "picture-impossible"
    reason: str

    def __str__(self) -> str:
        return f"the server cannot make this picture: {self.reason}"


@dataclass(eq=False)
class NonFinite(RequestError):
    """Hidden states hold NaN or infinity."""

    code: ClassVar[str] = "non-finite"
    where: str

    def __str__(self) -> str:
        return f"the {self.where} hidden states hold NaN or infinity"


@dataclass(eq=False)
class CodecOverflow(RequestError):
    """A finite value that the codec cannot hold, even scaled."""

    code: ClassVar[str] = "codec-overflow"
    codec: str

    def __str__(self) -> str:
        return f"a hidden state is too large for {self.codec}: choose fp32"


class ServerError(WireError):
    """The server's own trouble: reconnect (anywhere) and replay."""


@dataclass(eq=False)
class ServerDraining(ServerError):
    """The server is shutting down."""

    code: ClassVar[str] = "server-draining"

    def __str__(self) -> str:
        return "the server is shutting down"


@dataclass(eq=False)
class SessionEvicted(ServerError):
    """The server dropped this session's cache to make room."""

    code: ClassVar[str] = "session-evicted"

    def __str__(self) -> str:
        return "the server dropped this session's cache to make room"


@dataclass(eq=False)
class InternalError(ServerError):
    """A fault in the server; details are in its log only."""

    code: ClassVar[str] = "internal-error"
    incident: str

    def __str__(self) -> str:
        return f"the server failed (incident {self.incident}, see its log)"

"""The peer broke the protocol; the connection cannot go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lambda_split.errors.wire import WireError

__all__ = [
    "FrameLengthMismatch",
    "FrameOversized",
    "FramePadding",
    "FrameTruncated",
    "FrameUnknownCodec",
    "FrameUnknownFlags",
    "FrameUnknownKind",
    "FrameVersion",
    "HandshakeTimeout",
    "MessageMalformed",
    "ProtocolError",
    "SequenceBroken",
    "UnexpectedMessage",
]


class ProtocolError(WireError):
    """The peer broke the protocol; the connection cannot go on."""


@dataclass(eq=False)
class FrameTruncated(ProtocolError):
    """A binary message is shorter than the fixed header."""

    code: ClassVar[str] = "frame-truncated"
    length: int
    needed: int

    def __str__(self) -> str:
        return (
            f"a binary message of {self.length} bytes is shorter than the {self.needed}-byte header"
        )


@dataclass(eq=False)
class FrameOversized(ProtocolError):
    """A frame announces more than the limit; nothing was allocated for it."""

    code: ClassVar[str] = "frame-oversized"
    length: int
    limit: int

    def __str__(self) -> str:
        return f"a frame of {self.length} bytes exceeds the limit of {self.limit}"


@dataclass(eq=False)
class FrameLengthMismatch(ProtocolError):
    """The payload is not as long as the header (or tokens × width × codec) says."""

    code: ClassVar[str] = "frame-length-mismatch"
    length: int
    expected: int

    def __str__(self) -> str:
        return f"a frame's payload has {self.length} bytes where {self.expected} were announced"


@dataclass(eq=False)
class FramePadding(ProtocolError):
    """Bits behind the last packed code are set, so the payload is not what its sender packed."""

    code: ClassVar[str] = "frame-padding"
    padding: int

    def __str__(self) -> str:
        return f"a payload's padding bits are {self.padding:#04x} where they must be 0"


@dataclass(eq=False)
class FrameUnknownKind(ProtocolError):
    """The header's kind byte names no known frame."""

    code: ClassVar[str] = "frame-unknown-kind"
    kind: int

    def __str__(self) -> str:
        return f"unknown frame kind {self.kind}"


@dataclass(eq=False)
class FrameUnknownFlags(ProtocolError):
    """A reserved flag bit is set."""

    code: ClassVar[str] = "frame-unknown-flags"
    flags: int

    def __str__(self) -> str:
        return f"unknown flags {self.flags:#04x}"


@dataclass(eq=False)
class FrameUnknownCodec(ProtocolError):
    """The header's codec byte is unknown, or not the one agreed on."""

    code: ClassVar[str] = "frame-unknown-codec"
    codec: int

    def __str__(self) -> str:
        return f"codec {self.codec} is unknown or was not agreed on"


@dataclass(eq=False)
class FrameVersion(ProtocolError):
    """The header's version byte is not this protocol's."""

    code: ClassVar[str] = "frame-version"
    found: int
    expected: int

    def __str__(self) -> str:
        return f"a frame has protocol version {self.found}, expected {self.expected}"


@dataclass(eq=False)
class SequenceBroken(ProtocolError):
    """Frames were lost, repeated or reordered."""

    code: ClassVar[str] = "sequence-broken"
    found: int
    expected: int

    def __str__(self) -> str:
        return f"a frame has sequence number {self.found}, expected {self.expected}"


@dataclass(eq=False)
class MessageMalformed(ProtocolError):
    """A text message is not a well-formed control message."""

    code: ClassVar[str] = "message-malformed"
    reason: str

    def __str__(self) -> str:
        return f"malformed control message: {self.reason}"


@dataclass(eq=False)
class UnexpectedMessage(ProtocolError):
    """A message that the state machine does not allow now."""

    code: ClassVar[str] = "unexpected-message"
    what: str
    state: str

    def __str__(self) -> str:
        return f"{self.what} is not allowed in state {self.state}"


@dataclass(eq=False)
class HandshakeTimeout(ProtocolError):
    """The device connected but said no hello in time."""

    code: ClassVar[str] = "handshake-timeout"
    seconds: int

    def __str__(self) -> str:
        return f"no hello within {self.seconds} s"

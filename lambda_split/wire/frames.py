"""Binary frames: the fixed header and what it promises about the payload.

::

     0               1               2               3
    +---------------+---------------+---------------+---------------+
    |    version    |     kind      |     flags     |     codec     |
    +---------------+---------------+---------------+---------------+
    |                        start position                         |
    +---------------------------------------------------------------+
    |                       number of tokens                        |
    +---------------------------------------------------------------+
    |             reply (forward) / 0 (hidden)                      |
    +---------------------------------------------------------------+
    |                        sequence number                        |
    +---------------------------------------------------------------+
    |             0 (forward) / compute microseconds (hidden)       |
    +---------------------------------------------------------------+
    |                        payload length                         |
    +---------------------------------------------------------------+
    |                          payload …

All integers are little-endian and unsigned. One WebSocket binary message is exactly one frame.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from lambda_split.errors import (
    FrameLengthMismatch,
    FrameOversized,
    FrameTruncated,
    FrameUnknownCodec,
    FrameUnknownFlags,
    FrameUnknownKind,
    FrameVersion,
)

__all__ = [
    "HEADER",
    "HEADER_BYTES",
    "MAX_U32",
    "PROTOCOL_VERSION",
    "Codec",
    "Frame",
    "FrameKind",
    "parse_frame",
    "payload_bytes",
]

PROTOCOL_VERSION = 1
MAX_U32 = 0xFFFF_FFFF

HEADER = struct.Struct("<BBBBIIIIII")
HEADER_BYTES = HEADER.size  # 28

_FLAG_SCALED = 0x01


class FrameKind(enum.IntEnum):
    """What a binary frame is."""

    FORWARD = 1
    """Device to trunk: hidden states to run through the trunk's layers."""
    HIDDEN = 2
    """Trunk to device: hidden states that came out of them."""


class Codec(enum.IntEnum):
    """How one hidden-state value is laid out on the wire; the names are those of the handshake."""

    FP32 = 1
    FP16 = 2
    BF16 = 3

    @property
    def label(self) -> str:
        """The name in control messages and on the command line, such as ``fp16``."""
        return self.name.lower()

    @property
    def value_bytes(self) -> int:
        """Bytes of one value."""
        return 4 if self is Codec.FP32 else 2

    @classmethod
    def from_label(cls, label: str) -> Codec | None:
        """The codec of that name, or None where this version knows none."""
        return next((codec for codec in cls if codec.label == label), None)


# Sets of plain integers: before Python 3.12 "integer in EnumClass" raises TypeError.
_KINDS = frozenset(int(kind) for kind in FrameKind)
_CODECS = frozenset(int(codec) for codec in Codec)


@dataclass(frozen=True, slots=True)
class Frame:
    """One binary frame.

    Attributes:
        kind: Direction and meaning.
        codec: Layout of the payload's values.
        start: Position of the first token; the trunk cuts its cache back to it before appending.
        tokens: Number of consecutive positions in the payload.
        sequence: 0 for a connection's first forward, then one more each; a reply repeats the number
            of the forward that it answers.
        payload: Exponents (if ``scaled``), then tokens × width values, row-major.
        reply: How many of the chunk's last positions should come back (forward only).
        micros: Compute time in the trunk in microseconds (hidden only).
        scaled: The payload begins with one int8 power-of-two exponent per token.
    """

    kind: FrameKind
    codec: Codec
    start: int
    tokens: int
    sequence: int
    payload: bytes | memoryview
    reply: int = 0
    micros: int = 0
    scaled: bool = False

    def serialize(self) -> bytes:
        """The frame's bytes."""
        header = HEADER.pack(
            PROTOCOL_VERSION,
            self.kind,
            _FLAG_SCALED if self.scaled else 0,
            self.codec,
            self.start,
            self.tokens,
            self.reply,
            self.sequence,
            min(self.micros, MAX_U32),
            len(self.payload),
        )
        return b"".join((header, self.payload))


def payload_bytes(codec: Codec, tokens: int, width: int, *, scaled: bool) -> int:
    """Exact payload length of ``tokens`` positions of ``width`` values."""
    return tokens * width * codec.value_bytes + (tokens if scaled else 0)


def parse_frame(message: bytes | memoryview, *, width: int, max_tokens: int) -> Frame:
    """Read one binary message.

    Every length is checked against the limits and against the others before the payload is touched;
    the payload is a view into ``message``, nothing is copied.

    Args:
        message: The whole WebSocket message.
        width: The session's hidden size.
        max_tokens: The most positions one frame may carry.

    Returns:
        The frame.

    Raises:
        FrameTruncated: shorter than the header.
        FrameVersion: another protocol version.
        FrameUnknownKind: no such kind.
        FrameUnknownFlags: a reserved bit is set.
        FrameUnknownCodec: no such codec.
        FrameOversized: more tokens announced than the limit.
        FrameLengthMismatch: payload shorter or longer than announced, or than tokens × width need.
    """
    if len(message) < HEADER_BYTES:
        raise FrameTruncated(len(message), HEADER_BYTES)
    version, kind, flags, codec, start, tokens, reply, sequence, micros, length = (
        HEADER.unpack_from(message)
    )
    if version != PROTOCOL_VERSION:
        raise FrameVersion(version, PROTOCOL_VERSION)
    if kind not in _KINDS:
        raise FrameUnknownKind(kind)
    if flags & ~_FLAG_SCALED:
        raise FrameUnknownFlags(flags)
    if codec not in _CODECS:
        raise FrameUnknownCodec(codec)
    scaled = bool(flags & _FLAG_SCALED)
    if tokens > max_tokens:
        limit = payload_bytes(Codec(codec), max_tokens, width, scaled=scaled)
        raise FrameOversized(payload_bytes(Codec(codec), tokens, width, scaled=scaled), limit)
    expected = payload_bytes(Codec(codec), tokens, width, scaled=scaled)
    if length != expected:
        raise FrameLengthMismatch(length, expected)
    if len(message) - HEADER_BYTES != length:
        raise FrameLengthMismatch(len(message) - HEADER_BYTES, length)
    return Frame(
        kind=FrameKind(kind),
        codec=Codec(codec),
        start=start,
        tokens=tokens,
        sequence=sequence,
        payload=memoryview(message)[HEADER_BYTES:],
        reply=reply,
        micros=micros,
        scaled=scaled,
    )

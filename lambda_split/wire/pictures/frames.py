"""Binary frames of pictures: the header of text's frames, with a tensor format for a codec.

========  =========  ==========================================================================
kind      direction  payload
========  =========  ==========================================================================
PICTURE   to trunk   settings (JSON) and conditioning: a picture begins
STEP      to trunk   nothing, or the state from which to go on, or an inner part's input
NOISE     to device  what a step predicted; nothing where a picture has begun
========  =========  ==========================================================================

Header fields that text calls *start*, *tokens* and *reply* are here the step's number, the number
of tensors in the payload, and the length of the settings in bytes.
"""

from __future__ import annotations

import enum
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
from lambda_split.wire.frames import HEADER, HEADER_BYTES, MAX_U32, PROTOCOL_VERSION
from lambda_split.wire.tensor_format import TensorFormat

__all__ = ["PictureFrame", "PictureFrameKind", "parse_picture_frame"]


class PictureFrameKind(enum.IntEnum):
    """What a binary frame of a picture is."""

    PICTURE = 3
    STEP = 4
    NOISE = 5


_KINDS = frozenset(int(kind) for kind in PictureFrameKind)


@dataclass(frozen=True, slots=True)
class PictureFrame:
    """One binary frame.

    Attributes:
        kind: Direction and meaning.
        format: Layout of the payload's tensors: of a picture's conditioning, a step's input or what
            came out of it. A state is fp32, whatever stands here.
        step: Number of the step, 0 for the first.
        tensors: Tensors in the payload.
        sequence: As in text: one more each, and repeated by the answer.
        payload: Settings, then tensors.
        settings_bytes: How much of the payload is settings (PICTURE only).
        micros: Compute time in the trunk in microseconds (NOISE only).
    """

    kind: PictureFrameKind
    format: TensorFormat
    step: int
    tensors: int
    sequence: int
    payload: bytes | memoryview
    settings_bytes: int = 0
    micros: int = 0

    @property
    def tokens(self) -> int:
        """Positions that it takes: one step."""
        return 1

    def serialize(self) -> bytes:
        """The frame's bytes."""
        header = HEADER.pack(
            PROTOCOL_VERSION,
            self.kind,
            0,
            self.format.code,
            self.step,
            self.tensors,
            self.settings_bytes,
            self.sequence,
            min(self.micros, MAX_U32),
            len(self.payload),
        )
        return b"".join((header, self.payload))


def parse_picture_frame(message: bytes | memoryview, *, max_payload: int) -> PictureFrame:
    """Read one binary message; what its payload has to be is for the session to say.

    Args:
        message: The whole WebSocket message.
        max_payload: The longest payload.

    Returns:
        The frame; its payload is a view into ``message``.

    Raises:
        FrameTruncated: shorter than the header.
        FrameVersion: another protocol version.
        FrameUnknownKind: no such kind.
        FrameUnknownFlags: a bit is set.
        FrameUnknownCodec: no such tensor format.
        FrameOversized: a longer payload announced than the limit.
        FrameLengthMismatch: the payload is not as long as announced, or shorter than its settings.
    """
    if len(message) < HEADER_BYTES:
        raise FrameTruncated(len(message), HEADER_BYTES)
    version, kind, flags, code, step, tensors, settings_bytes, sequence, micros, length = (
        HEADER.unpack_from(message)
    )
    if version != PROTOCOL_VERSION:
        raise FrameVersion(version, PROTOCOL_VERSION)
    if kind not in _KINDS:
        raise FrameUnknownKind(kind)
    if flags:
        raise FrameUnknownFlags(flags)
    found = TensorFormat.from_code(code)
    if found is None:
        raise FrameUnknownCodec(code)
    if length > max_payload:
        raise FrameOversized(length, max_payload)
    if len(message) - HEADER_BYTES != length:
        raise FrameLengthMismatch(len(message) - HEADER_BYTES, length)
    if settings_bytes > length:
        raise FrameLengthMismatch(length, settings_bytes)
    return PictureFrame(
        kind=PictureFrameKind(kind),
        format=found,
        step=step,
        tensors=tensors,
        sequence=sequence,
        payload=memoryview(message)[HEADER_BYTES:],
        settings_bytes=settings_bytes,
        micros=micros,
    )

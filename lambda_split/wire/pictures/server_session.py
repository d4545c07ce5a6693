"""The server's side of a connection that makes pictures, without I/O.

Whether the trunk is where a step wants to go on is settled when its turn comes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lambda_split.errors import (
    FrameLengthMismatch,
    FrameUnknownCodec,
    FrameUnknownKind,
    MessageMalformed,
    PositionBeyondEnd,
    PositionGap,
    UnexpectedMessage,
)
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.frames import HEADER_BYTES
from lambda_split.wire.messages import MAX_MESSAGE_BYTES, Welcome, serialize_message
from lambda_split.wire.pictures.frames import PictureFrame, PictureFrameKind, parse_picture_frame
from lambda_split.wire.pictures.handshake import AcceptedPictures
from lambda_split.wire.pictures.layout import (
    CONDITIONING_FORMATS,
    FLOAT_BYTES,
    DenoiserGeometry,
    conditioning_shapes,
    inner_shapes,
    state_shape,
)
from lambda_split.wire.pictures.settings import (
    MAX_IMAGES,
    MAX_ROW_TOKENS,
    PictureSettings,
    parse_settings,
)
from lambda_split.wire.sides import ServerSide, State
from lambda_split.wire.tensor_codecs import payload_bytes
from lambda_split.wire.tensor_format import GROUP_BYTES

__all__ = ["MAX_STATE_TENSORS", "PictureServerSession", "PictureStart", "PictureStep"]

# Latents, what a solver remembers (one tensor or none), and what a difference is coded against.
MAX_STATE_TENSORS = 3


@dataclass(frozen=True, slots=True)
class PictureStart:
    """A picture begins: its settings, and the frame that has its conditioning."""

    settings: PictureSettings
    frame: PictureFrame

    @property
    def conditioning(self) -> memoryview:
        """The payload behind the settings."""
        return memoryview(self.frame.payload)[self.frame.settings_bytes :]


@dataclass(frozen=True, slots=True)
class PictureStep:
    """A step of the picture that began last."""

    settings: PictureSettings
    frame: PictureFrame


class PictureServerSession(ServerSide):
    """The server's side of one connection.

    Attributes:
        state: Where it is.
    """

    def __init__(self, geometry: DenoiserGeometry) -> None:
        super().__init__()
        self._geometry = geometry
        self._accepted: AcceptedPictures | None = None
        self._settings: PictureSettings | None = None

    def accept(self, welcome: Welcome, accepted: AcceptedPictures) -> str:
        """Open the session; returns the text frame to send."""
        self._accepted = accepted
        self.state = State.OPEN
        return serialize_message(welcome)

    @property
    def longest_message(self) -> int:
        """Bytes of the longest binary message that this session may be sent."""
        if self._accepted is None:
            return MAX_MESSAGE_BYTES
        return HEADER_BYTES + longest_payload(self._accepted, self._geometry)

    def receive_binary(self, message: bytes) -> PictureStart | PictureStep:
        """A binary frame came in.

        Returns:
            What it begins or goes on with: well formed, and within what was agreed.

        Raises:
            ProtocolError: the connection cannot go on.
            RequestError: this frame is rejected: answer it with :meth:`reject`, whose sequence is
                :attr:`last_sequence`.
        """
        accepted = self._accepted
        if accepted is None or self.state is not State.OPEN:
            raise UnexpectedMessage("a binary frame", self.state.value)
        limit = longest_payload(accepted, self._geometry)
        frame = parse_picture_frame(message, max_payload=limit)
        if frame.kind is PictureFrameKind.NOISE:
            raise FrameUnknownKind(frame.kind)
        self._count(frame.sequence)
        if frame.kind is PictureFrameKind.PICTURE:
            return self._start(frame, accepted)
        return self._step(frame, accepted)

    def _start(self, frame: PictureFrame, accepted: AcceptedPictures) -> PictureStart:
        if frame.format not in CONDITIONING_FORMATS:
            raise FrameUnknownCodec(frame.format.code)
        if frame.step:
            raise MessageMalformed(f"a picture begins at step {frame.step}, not 0")
        settings = parse_settings(memoryview(frame.payload)[: frame.settings_bytes])
        self._geometry.check(settings, deep=accepted.split == "deep")
        shapes = conditioning_shapes(settings, self._geometry)
        expected = sum(payload_bytes(frame.format, shape) for shape in shapes)
        if frame.tensors != len(shapes):
            raise MessageMalformed(f"{frame.tensors} tensors of conditioning, not {len(shapes)}")
        if len(frame.payload) - frame.settings_bytes != expected:
            raise FrameLengthMismatch(len(frame.payload) - frame.settings_bytes, expected)
        # From here on a fault is the picture's: the steps behind it meet no picture.
        self._settings = None
        context = math.prod(shapes[0][:-1])
        latents = settings.images * settings.height * settings.width
        row_tokens = settings.images * settings.branches * settings.context_tokens
        if row_tokens > MAX_ROW_TOKENS:
            raise PositionBeyondEnd(row_tokens, MAX_ROW_TOKENS)
        if context > accepted.max_context:
            raise PositionBeyondEnd(context, accepted.max_context)
        if latents > accepted.max_latents:
            raise PositionBeyondEnd(latents, accepted.max_latents)
        if settings.steps > accepted.max_steps:
            raise PositionBeyondEnd(settings.steps, accepted.max_steps)
        self._settings = settings
        return PictureStart(settings, frame)

    def _step(self, frame: PictureFrame, accepted: AcceptedPictures) -> PictureStep:
        settings = self._settings
        if frame.format != accepted.format:
            raise FrameUnknownCodec(frame.format.code)
        if frame.settings_bytes:
            raise FrameLengthMismatch(frame.settings_bytes, 0)
        if settings is None:
            raise PositionGap(frame.step, 0)
        if accepted.split == "deep":
            expected = self._inner_bytes(settings, accepted)
            valid = frame.tensors == 1
        else:
            tensor_bytes = FLOAT_BYTES * math.prod(state_shape(settings, self._geometry))
            expected = frame.tensors * tensor_bytes
            valid = frame.tensors <= MAX_STATE_TENSORS
        if not valid:
            raise MessageMalformed(f"{frame.tensors} tensors in a step")
        if len(frame.payload) != expected:
            raise FrameLengthMismatch(len(frame.payload), expected)
        if frame.step >= settings.steps:
            raise PositionBeyondEnd(frame.step + 1, settings.steps)
        return PictureStep(settings, frame)

    def _inner_bytes(self, settings: PictureSettings, accepted: AcceptedPictures) -> int:
        if self._geometry.deep is None:
            raise UnexpectedMessage("a step of the deep split", self.state.value)
        entering, _ = inner_shapes(settings, self._geometry.deep)
        return payload_bytes(accepted.format, entering)

    def reply(self, asked: PictureStart | PictureStep, encoded: Encoded, micros: int) -> bytes:
        """Answer a frame: a step with what came out of it, a start with nothing."""
        frame = asked.frame
        return PictureFrame(
            kind=PictureFrameKind.NOISE,
            format=frame.format,
            step=frame.step,
            tensors=1 if isinstance(asked, PictureStep) else 0,
            sequence=frame.sequence,
            payload=encoded.payload,
            micros=micros,
        ).serialize()


def longest_payload(accepted: AcceptedPictures, geometry: DenoiserGeometry) -> int:
    """Bytes of the longest payload of a session: conditioning, a state, or an inner part's input.

    Bounded by what was agreed, before a picture's own settings are known.
    """
    latents = accepted.max_latents
    conditioning = accepted.max_context * (geometry.context_width + geometry.pooled_width)
    state = MAX_STATE_TENSORS * geometry.channels * latents
    longest = FLOAT_BYTES * max(conditioning, state)
    if geometry.deep is not None:
        # Of tiny images a group's parameters are more bytes than its values would be in float32.
        values, groups = latents, min(latents, MAX_IMAGES)
        row = geometry.deep.input_channels * (FLOAT_BYTES * values + GROUP_BYTES * groups)
        longest = max(longest, 2 * row)  # with guidance
    return MAX_MESSAGE_BYTES + longest

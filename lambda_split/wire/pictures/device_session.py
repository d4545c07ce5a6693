"""The device's side of a connection that makes pictures, without I/O."""

from __future__ import annotations

from dataclasses import dataclass

from lambda_split.errors import (
    FrameLengthMismatch,
    FrameUnknownCodec,
    FrameUnknownKind,
    MessageMalformed,
    UnexpectedMessage,
)
from lambda_split.wire.messages import PictureHello, Welcome
from lambda_split.wire.pictures.frames import PictureFrame, PictureFrameKind, parse_picture_frame
from lambda_split.wire.pictures.settings import PictureSettings, serialize_settings
from lambda_split.wire.sides import DeviceSide, State
from lambda_split.wire.tensor_format import TensorFormat

__all__ = ["PictureDeviceSession"]


@dataclass(frozen=True, slots=True)
class _Asked:
    step: int
    format: TensorFormat
    tensors: int  # of the answer
    nbytes: int  # of its payload


class PictureDeviceSession(DeviceSide[_Asked, PictureFrame]):
    """The device's side of one connection.

    Attributes:
        state: Where it is.
        in_flight: Frames that wait for their answer.
    """

    def __init__(self, hello: PictureHello) -> None:
        super().__init__(hello)
        self._hello = hello
        self._format: TensorFormat | None = None

    @property
    def format(self) -> TensorFormat:
        """The tensor format agreed on.

        Raises:
            UnexpectedMessage: the session is not open yet.
        """
        if self._format is None:
            raise UnexpectedMessage("a step", self.state.value)
        return self._format

    def _agree(self, welcome: Welcome) -> None:
        chosen = TensorFormat.from_label(welcome.codec)
        if chosen is None or chosen.label not in self._hello.formats:
            raise MessageMalformed(f"the welcome chose the format {welcome.codec!r}")
        if welcome.max_positions < self._hello.steps:
            raise MessageMalformed(f"the welcome grants {welcome.max_positions} steps only")
        self._format = chosen

    def picture(
        self, settings: PictureSettings, conditioning: bytes, form: TensorFormat, *, tensors: int
    ) -> bytes:
        """The binary frame that begins a picture.

        Args:
            settings: What is made.
            conditioning: Its tensors, one after another.
            form: How they are laid out: one of the floating-point formats.
            tensors: How many they are.

        Raises:
            UnexpectedMessage: the session is not open yet.
        """
        if self._format is None:
            raise UnexpectedMessage("a picture", self.state.value)
        head = serialize_settings(settings)
        sequence = self._in_flight.send(_Asked(0, form, 0, 0))
        return PictureFrame(
            kind=PictureFrameKind.PICTURE,
            format=form,
            step=0,
            tensors=tensors,
            sequence=sequence,
            payload=head + conditioning,
            settings_bytes=len(head),
        ).serialize()

    def step(self, step: int, payload: bytes, *, tensors: int, answer_bytes: int) -> bytes:
        """The binary frame that asks for a step.

        Args:
            step: Its number.
            payload: The state to go on from, an inner part's input, or nothing.
            tensors: Tensors in it.
            answer_bytes: Exact length of the answer's payload.

        Raises:
            UnexpectedMessage: the session is not open yet.
        """
        sequence = self._in_flight.send(_Asked(step, self.format, 1, answer_bytes))
        return PictureFrame(
            kind=PictureFrameKind.STEP,
            format=self.format,
            step=step,
            tensors=tensors,
            sequence=sequence,
            payload=payload,
        ).serialize()

    def receive_binary(self, message: bytes) -> PictureFrame:
        """A binary frame came in: the answer to the oldest frame in flight.

        Raises:
            ProtocolError: it is not that answer, or malformed.
        """
        if self.state is not State.OPEN or not self._in_flight:
            raise UnexpectedMessage("a binary frame", self.state.value)
        asked = self._in_flight.oldest
        frame = parse_picture_frame(message, max_payload=asked.nbytes)
        if frame.kind is not PictureFrameKind.NOISE:
            raise FrameUnknownKind(frame.kind)
        if frame.format != asked.format:
            raise FrameUnknownCodec(frame.format.code)
        self._in_flight.check(frame.sequence)
        if (frame.step, frame.tensors) != (asked.step, asked.tensors):
            raise UnexpectedMessage("the answer to another step", self.state.value)
        if len(frame.payload) != asked.nbytes or frame.settings_bytes:
            raise FrameLengthMismatch(len(frame.payload), asked.nbytes)
        self._in_flight.answered()
        return frame

"""The session state machines of text, one for each side, without I/O; see ``sides``."""

from __future__ import annotations

from dataclasses import dataclass

from lambda_split.errors import (
    ChunkTooLong,
    FrameUnknownCodec,
    FrameUnknownKind,
    MessageMalformed,
    PositionBeyondEnd,
    PositionGap,
    RequestError,
    UnexpectedMessage,
)
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.frames import Codec, Frame, FrameKind, parse_frame
from lambda_split.wire.in_flight import Rejected
from lambda_split.wire.messages import Hello, Welcome, serialize_message
from lambda_split.wire.sides import DeviceSide, ServerSide, State

__all__ = ["DeviceSession", "Rejected", "ServerSession", "State"]


class ServerSession(ServerSide):
    """The server's side of one connection.

    Attributes:
        state: Where it is.
        length: Positions that the trunk holds after the forwards answered so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self._welcome: Welcome | None = None
        self._codec: Codec | None = None
        self._width = 0
        self._ends: dict[int, int] = {}  # of the forwards in flight, by sequence number

    def accept(self, welcome: Welcome, codec: Codec, width: int) -> str:
        """Open the session; returns the text frame to send."""
        self._welcome = welcome
        self._codec = codec
        self._width = width
        self.state = State.OPEN
        return serialize_message(welcome)

    def receive_binary(self, message: bytes) -> Frame:
        """A binary frame came in; the caller decodes its payload and runs it.

        Returns:
            The forward: it fits the limits and continues the sequence. Whether the trunk holds all
            positions before ``start`` is settled when its turn comes, since earlier forwards may
            fail; here only a start that none of their outcomes allows is rejected.

        Raises:
            ProtocolError: the connection cannot go on.
            RequestError: this forward is rejected: answer it with :meth:`reject`, whose sequence is
                :attr:`last_sequence`.
        """
        if self._welcome is None or self.state is not State.OPEN:
            raise UnexpectedMessage("a binary frame", self.state.value)
        limit = self._welcome.max_chunk_tokens
        frame = parse_frame(message, width=self._width, max_tokens=limit)
        if frame.kind is not FrameKind.FORWARD:
            raise FrameUnknownKind(frame.kind)
        if frame.codec is not self._codec:
            raise FrameUnknownCodec(frame.codec)
        self._count(frame.sequence)
        # From here on the frame is well formed: a fault is the request's, not the connection's.
        if frame.tokens == 0:
            raise ChunkTooLong(frame.tokens, limit)
        if frame.reply > frame.tokens:
            raise ChunkTooLong(frame.reply, frame.tokens)
        reachable = max(self.length, *self._ends.values(), 0)
        if frame.start > reachable:
            raise PositionGap(frame.start, reachable)
        end = frame.start + frame.tokens
        if end > self._welcome.max_positions:
            raise PositionBeyondEnd(end, self._welcome.max_positions)
        self._ends[frame.sequence] = end
        return frame

    def reject(self, sequence: int, error: RequestError) -> str:
        """Answer a forward with an error: the session is as if it had not been sent."""
        self._ends.pop(sequence, None)
        return super().reject(sequence, error)

    def reply(self, asked: Frame, encoded: Encoded, micros: int) -> bytes:
        """Answer a forward with the hidden states of its last ``reply`` positions."""
        self.length = self._ends.pop(asked.sequence)
        return Frame(
            kind=FrameKind.HIDDEN,
            codec=asked.codec,
            start=asked.start + asked.tokens - asked.reply,
            tokens=asked.reply,
            sequence=asked.sequence,
            payload=encoded.payload,
            micros=micros,
            scaled=encoded.scaled,
        ).serialize()


@dataclass(frozen=True)
class _Pending:
    start: int  # of the reply
    tokens: int  # of the reply


class DeviceSession(DeviceSide[_Pending, Frame]):
    """The device's side of one connection.

    Attributes:
        state: Where it is.
        in_flight: Forwards that wait for their reply.
    """

    def __init__(self, hello: Hello) -> None:
        super().__init__(hello)
        self._hello = hello
        self._codec: Codec | None = None

    @property
    def codec(self) -> Codec:
        """The codec agreed on.

        Raises:
            UnexpectedMessage: the session is not open yet.
        """
        if self._codec is None:
            raise UnexpectedMessage("a forward", self.state.value)
        return self._codec

    def _agree(self, welcome: Welcome) -> None:
        codec = Codec.from_label(welcome.codec)
        if codec is None or codec.label not in self._hello.codecs:
            raise MessageMalformed(f"the welcome chose the codec {welcome.codec!r}")
        if welcome.max_positions < self._hello.max_positions:
            raise MessageMalformed(f"the welcome grants {welcome.max_positions} positions only")
        self._codec = codec

    def forward(self, start: int, tokens: int, encoded: Encoded, *, reply: int) -> bytes:
        """The binary frame that sends a chunk.

        Args:
            start: Position of its first token.
            tokens: Its number of positions.
            encoded: Its hidden states, in the codec agreed on.
            reply: How many of its last positions should come back; 0 when replaying.
        """
        frame = Frame(
            kind=FrameKind.FORWARD,
            codec=self.codec,
            start=start,
            tokens=tokens,
            sequence=self._in_flight.next_sequence,
            payload=encoded.payload,
            reply=reply,
            scaled=encoded.scaled,
        )
        self._in_flight.send(_Pending(start + tokens - reply, reply))
        return frame.serialize()

    def receive_binary(self, message: bytes) -> Frame:
        """A binary frame came in: the reply to the oldest forward in flight.

        Raises:
            ProtocolError: it is not that reply, or malformed.
        """
        if self.state is not State.OPEN or not self._in_flight:
            raise UnexpectedMessage("a binary frame", self.state.value)
        pending = self._in_flight.oldest
        frame = parse_frame(message, width=self._hello.hidden_size, max_tokens=pending.tokens)
        if frame.kind is not FrameKind.HIDDEN:
            raise FrameUnknownKind(frame.kind)
        if frame.codec is not self._codec:
            raise FrameUnknownCodec(frame.codec)
        self._in_flight.check(frame.sequence)
        if (frame.start, frame.tokens) != (pending.start, pending.tokens):
            raise UnexpectedMessage("a reply for other positions", self.state.value)
        self._in_flight.answered()
        return frame

"""The session state machine, once for each side, without I/O.

::

    device                                   server
    ------                                   ------
    CONNECTING -- hello ------------------>  AWAIT_HELLO
               <-- welcome ----------------  OPEN
    OPEN       -- forward (0..n in flight) ->
               <-- hidden | error(sequence) -  in the order of the forwards
    CLOSED     -- bye | <-- error | bye ---  CLOSED

Bytes and texts come in, events and bytes go out; the caller owns the socket. A typed
:class:`~lambda_split.errors.ProtocolError` raised here ends the connection; a
:class:`~lambda_split.errors.RequestError` answers one forward and leaves the session as it was.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from lambda_split.errors import (
    ChunkTooLong,
    FrameUnknownCodec,
    FrameUnknownKind,
    MessageMalformed,
    PositionBeyondEnd,
    PositionGap,
    RequestError,
    SequenceBroken,
    UnexpectedMessage,
    WireError,
)
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.frames import MAX_U32, Codec, Frame, FrameKind, parse_frame
from lambda_split.wire.in_flight import InFlight, Rejected
from lambda_split.wire.messages import (
    Bye,
    ErrorMessage,
    Hello,
    PictureHello,
    Welcome,
    message_type,
    parse_message,
    serialize_message,
)

__all__ = ["DeviceSession", "Rejected", "ServerSession", "State"]


class State(enum.Enum):
    """Where a session is."""

    AWAIT_HELLO = "await-hello"
    CONNECTING = "connecting"
    OPEN = "open"
    CLOSED = "closed"


class ServerSession:
    """The server's side of one connection.

    Attributes:
        state: Where it is.
        length: Positions that the trunk holds after the forwards answered so far.
    """

    def __init__(self) -> None:
        self.state = State.AWAIT_HELLO
        self.length = 0
        self._next_sequence = 0
        self._welcome: Welcome | None = None
        self._codec: Codec | None = None
        self._width = 0
        self._ends: dict[int, int] = {}  # of the forwards in flight, by sequence number

    def receive_text(self, text: str) -> Hello | PictureHello | Bye:
        """A text frame came in.

        Raises:
            MessageMalformed: it is no control message.
            UnexpectedMessage: it is one that a device does not send now.
        """
        message = parse_message(text)
        if isinstance(message, Bye):
            self.state = State.CLOSED
            return message
        if isinstance(message, Hello | PictureHello) and self.state is State.AWAIT_HELLO:
            return message
        raise UnexpectedMessage(message_type(message), self.state.value)

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
        if frame.sequence != self._next_sequence:
            raise SequenceBroken(frame.sequence, self._next_sequence)
        # From here on the frame is well formed: a fault is the request's, not the connection's.
        self._next_sequence = (self._next_sequence + 1) & MAX_U32
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

    @property
    def last_sequence(self) -> int:
        """The sequence number of the forward that :meth:`receive_binary` saw last."""
        return (self._next_sequence - 1) & MAX_U32

    def reject(self, sequence: int, error: RequestError) -> str:
        """Answer a forward with an error: the session is as if it had not been sent."""
        self._ends.pop(sequence, None)
        return serialize_message(ErrorMessage.from_error(error, sequence))

    def reply(self, forward: Frame, encoded: Encoded, micros: int) -> bytes:
        """Answer a forward with the hidden states of its last ``reply`` positions."""
        self.length = self._ends.pop(forward.sequence)
        return Frame(
            kind=FrameKind.HIDDEN,
            codec=forward.codec,
            start=forward.start + forward.tokens - forward.reply,
            tokens=forward.reply,
            sequence=forward.sequence,
            payload=encoded.payload,
            micros=micros,
            scaled=encoded.scaled,
        ).serialize()


@dataclass(frozen=True)
class _Pending:
    start: int  # of the reply
    tokens: int  # of the reply


class DeviceSession:
    """The device's side of one connection.

    Attributes:
        state: Where it is.
        in_flight: Forwards that wait for their reply.
    """

    def __init__(self, hello: Hello) -> None:
        self.state = State.CONNECTING
        self._hello = hello
        self._codec: Codec | None = None
        self._in_flight: InFlight[_Pending] = InFlight()

    @property
    def in_flight(self) -> int:
        """Forwards that wait for their reply."""
        return len(self._in_flight)

    @property
    def codec(self) -> Codec:
        """The codec agreed on.

        Raises:
            UnexpectedMessage: the session is not open yet.
        """
        if self._codec is None:
            raise UnexpectedMessage("a forward", self.state.value)
        return self._codec

    def hello(self) -> str:
        """The first text frame to send."""
        return serialize_message(self._hello)

    def receive_text(self, text: str) -> Welcome | Rejected | Bye:
        """A text frame came in.

        Returns:
            The welcome, or the rejection of the oldest forward in flight.

        Raises:
            WireError: the typed error that the server sent, where it ends the connection.
            ProtocolError: the server broke the protocol.
        """
        message = parse_message(text)
        if isinstance(message, ErrorMessage):
            return self._receive_error(message)
        if isinstance(message, Bye):
            self.state = State.CLOSED
            return message
        if isinstance(message, Welcome) and self.state is State.CONNECTING:
            codec = Codec.from_label(message.codec)
            if codec is None or codec.label not in self._hello.codecs:
                raise MessageMalformed(f"the welcome chose the codec {message.codec!r}")
            if message.max_positions < self._hello.max_positions:
                raise MessageMalformed(f"the welcome grants {message.max_positions} positions only")
            self._codec = codec
            self.state = State.OPEN
            return message
        raise UnexpectedMessage(message_type(message), self.state.value)

    def _receive_error(self, message: ErrorMessage) -> Rejected:
        try:
            return self._in_flight.failed(message)
        except WireError:  # told by the server, or that it broke the protocol
            self.state = State.CLOSED
            raise

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

    def close(self, reason: str = "") -> str:
        """End the session; returns the text frame to send."""
        self.state = State.CLOSED
        return serialize_message(Bye(reason=reason))

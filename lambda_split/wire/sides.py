"""What sessions of text and of pictures have in common, on each side; no I/O.

::

    device                                   server
    ------                                   ------
    CONNECTING -- hello ------------------>  AWAIT_HELLO
               <-- welcome ----------------  OPEN
    OPEN       -- frames (0..n in flight) ->
               <-- frame | error(sequence) -  in the order of the device's frames
    CLOSED     -- bye | <-- error | bye ---  CLOSED

Bytes and texts come in, events and bytes go out; the caller owns the socket. A typed
:class:`~lambda_split.errors.ProtocolError` raised here ends the connection; a
:class:`~lambda_split.errors.RequestError` answers one frame and leaves the session as it was.
"""

from __future__ import annotations

import abc
import enum
from typing import Generic, Protocol, TypeVar

from lambda_split.errors import RequestError, SequenceBroken, UnexpectedMessage, WireError
from lambda_split.wire.frames import MAX_U32
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

__all__ = ["Answer", "DeviceSide", "ServerSide", "State"]


class State(enum.Enum):
    """Where a session is."""

    AWAIT_HELLO = "await-hello"
    CONNECTING = "connecting"
    OPEN = "open"
    CLOSED = "closed"


class ServerSide:
    """The server's side of one connection: what comes before the frames, and their numbers.

    Attributes:
        state: Where it is.
    """

    def __init__(self) -> None:
        self.state = State.AWAIT_HELLO
        self._next_sequence = 0

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

    def _count(self, sequence: int) -> None:
        """A well-formed frame has this number."""
        if sequence != self._next_sequence:
            raise SequenceBroken(sequence, self._next_sequence)
        self._next_sequence = (self._next_sequence + 1) & MAX_U32

    @property
    def last_sequence(self) -> int:
        """The sequence number of the frame that :meth:`receive_binary` saw last."""
        return (self._next_sequence - 1) & MAX_U32

    def reject(self, sequence: int, error: RequestError) -> str:
        """Answer a frame with an error: the session is as if it had not been sent."""
        return serialize_message(ErrorMessage.from_error(error, sequence))


class Answer(Protocol):
    """A frame from the trunk."""

    @property
    def micros(self) -> int:
        """Compute time in the trunk in microseconds."""
        ...


_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer", bound=Answer)


class DeviceSide(abc.ABC, Generic[_Asked, _Answer]):
    """The device's side of one connection.

    Attributes:
        state: Where it is.
    """

    def __init__(self, hello: Hello | PictureHello) -> None:
        self.state = State.CONNECTING
        self._first = hello
        self._in_flight: InFlight[_Asked] = InFlight()

    @property
    def in_flight(self) -> int:
        """Frames that wait for their answer."""
        return len(self._in_flight)

    def hello(self) -> str:
        """The first text frame to send."""
        return serialize_message(self._first)

    def receive_text(self, text: str) -> Welcome | Rejected | Bye:
        """A text frame came in.

        Returns:
            The welcome, or the rejection of the oldest frame in flight.

        Raises:
            WireError: the typed error that the server sent, where it ends the connection.
            ProtocolError: the server broke the protocol.
        """
        message = parse_message(text)
        if isinstance(message, ErrorMessage):
            try:
                return self._in_flight.failed(message)
            except WireError:  # told by the server, or that it broke the protocol
                self.state = State.CLOSED
                raise
        if isinstance(message, Bye):
            self.state = State.CLOSED
            return message
        if isinstance(message, Welcome) and self.state is State.CONNECTING:
            self._agree(message)
            self.state = State.OPEN
            return message
        raise UnexpectedMessage(message_type(message), self.state.value)

    @abc.abstractmethod
    def _agree(self, welcome: Welcome) -> None:
        """Take what a welcome grants.

        Raises:
            MessageMalformed: it is not what the hello asked for.
        """

    @abc.abstractmethod
    def receive_binary(self, message: bytes) -> _Answer:
        """A binary frame came in: the answer to the oldest frame in flight.

        Raises:
            ProtocolError: it is not that answer, or malformed.
        """

    def close(self, reason: str = "") -> str:
        """End the session; returns the text frame to send."""
        self.state = State.CLOSED
        return serialize_message(Bye(reason=reason))

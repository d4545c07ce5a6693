"""What a connection and a kind of model say to each other.

Connections, admission, fairness, limits and metrics are the same for language models
(:mod:`cloud.text`) and denoisers (:mod:`cloud.pictures`). What differs is what a session says, how
it finds room in the engine, and what the engine is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from cloud.engine import SessionCache
from cloud.jobs import Request
from cloud.stepping import AnyEngine
from lambda_split.errors import RequestError
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.messages import Bye, Hello, PictureHello, Welcome
from lambda_split.wire.session import State

__all__ = ["AnyHello", "Conversation", "ModelKind", "Terms"]

AnyHello = Hello | PictureHello


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a handshake agreed on, as far as a connection has to know.

    Attributes:
        codec: Its label.
        positions: What the session was granted.
        replayed: Positions that the device lost with an earlier connection; 0 for a new session.
        longest_message: Bytes of the longest message that the device may send.
        facts: More of it, for the log.
    """

    codec: str
    positions: int
    replayed: int
    longest_message: int
    facts: dict[str, str | int] = field(default_factory=dict)


class Conversation(Protocol):
    """One connection's side of the protocol, without I/O. What its messages ask is its own."""

    @property
    def state(self) -> State:
        """Where it is."""
        ...

    def receive_text(self, text: str) -> AnyHello | Bye:
        """A text message came in.

        Raises:
            ProtocolError: it is none that a device sends now.
        """
        ...

    def agree(self, hello: AnyHello) -> Terms:
        """Decide about a hello.

        Raises:
            Refused: it does not fit what is served.
        """
        ...

    def make_room(self) -> SessionCache:
        """Open the session in the engine; called on the engine's thread after :meth:`agree`.

        Raises:
            CapacityRefused: there is no room.
        """
        ...

    def open(self, welcome: Welcome) -> str:
        """Begin the session; returns the text message to send."""
        ...

    def receive_binary(self, message: bytes) -> Any:  # noqa: ANN401  # see the class
        """A binary message came in; returns what it asks.

        Raises:
            ProtocolError: the connection cannot go on.
            RequestError: this message is rejected; its number is :attr:`last_sequence`.
        """
        ...

    def request(self, asked: Any) -> Request:  # noqa: ANN401  # see the class
        """What the engine has to do for it."""
        ...

    @property
    def last_sequence(self) -> int:
        """The number of the message that :meth:`receive_binary` saw last."""
        ...

    def reject(self, sequence: int, error: RequestError) -> str:
        """Answer a message with an error."""
        ...

    def reply(self, asked: Any, encoded: Encoded, micros: int) -> bytes:  # noqa: ANN401  # see the class
        """Answer what a message asked."""
        ...


class ModelKind(Protocol):
    """What a server serves."""

    @property
    def engine(self) -> AnyEngine:
        """Runs it."""
        ...

    @property
    def max_positions(self) -> int:
        """The most positions of a session."""
        ...

    @property
    def longest_message(self) -> int:
        """Bytes of the longest message that any session may send."""
        ...

    def conversation(self) -> Conversation:
        """For a new connection."""
        ...

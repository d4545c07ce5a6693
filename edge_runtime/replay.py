"""The trunk as the device sees it: one that never forgets.

The device is the source of truth. :class:`ReplayingTrunk` keeps what it sent, exactly as it went
over the wire; when the connection is lost, the server restarts, or another replica answers, it
reconnects with backoff, sends all of it again (without asking for replies) and goes on.
"""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from edge_runtime.connection import Connection, Endpoint, make_hello
from edge_runtime.outage import Outage
from edge_runtime.retry import RetryPolicy
from edge_runtime.sent_rows import SentRows
from edge_runtime.stats import Meter
from lambda_split.bundle import Manifest
from lambda_split.errors import (
    CapacityRefused,
    LambdaSplitError,
    LinkError,
    ServerError,
    UsageError,
)
from lambda_split.wire.codecs import decode, encode
from lambda_split.wire.frames import Codec

__all__ = ["ReplayingTrunk"]

logger = logging.getLogger(__name__)

Hidden = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Piece:
    """What one frame carries of a chunk: all of it, where the server takes frames that long."""

    start: int
    tokens: int
    reply: int
    ends_chunk: bool = True

    def split(self, size: int) -> Iterator[_Piece]:
        """Pieces of at most ``size`` positions whose replies together are this one's."""
        stop = self.start + self.tokens
        first_wanted = stop - self.reply
        for start in range(self.start, stop, size):
            end = min(start + size, stop)
            reply = max(0, end - max(start, first_wanted))
            yield _Piece(start, end - start, reply, self.ends_chunk and end == stop)


class ReplayingTrunk:
    """Sends chunks and receives their replies, over as many connections as it takes.

    Attributes:
        length: Positions that the trunk holds, or will after a replay.
        max_positions: Positions of the session.
        chunk_tokens: The most positions of one frame, as this device and the server want it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        manifest: Manifest,
        meter: Meter,
        *,
        codec: Codec,
        max_positions: int,
        chunk_tokens: int,
        retry: RetryPolicy,
    ) -> None:
        """Prepare a session; :meth:`connect` opens it."""
        self._endpoint = endpoint
        self._hello = make_hello(manifest, (codec,), max_positions)
        self._meter = meter
        self._codec = codec
        self._width = manifest.geometry.hidden_size
        self._wanted_chunk_tokens = chunk_tokens
        self.max_positions = max_positions
        self.chunk_tokens = chunk_tokens
        self._sent = SentRows(codec, self._width)
        # In order; the first `connection.in_flight` of them are sent, the others wait their turn.
        self._unanswered: collections.deque[_Piece] = collections.deque()
        self._replies: list[Hidden] = []  # to the first pieces of the oldest chunk
        self._connection: Connection | None = None
        self._outage = Outage(retry)
        self._closed = False

    def connect(self) -> None:
        """Connect once, without retrying, so that a wrong setting is told at once.

        A full server is told at once, too (:class:`CapacityRefused`, with the seconds after which
        to try again): nothing is lost yet, and the caller may rather take another server.

        Raises:
            LinkError: the server cannot be reached, or the connection broke.
            WireError: the server refused the session, failed, or broke the protocol.
        """
        self._connection = self._connect()

    @property
    def length(self) -> int:
        """Positions that the trunk holds, or will after a replay."""
        return self._sent.length

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def max_in_flight(self) -> int:
        """Chunks that may be in flight; 1 while there is no connection."""
        return self._connection.max_in_flight if self._connection is not None else 1

    def wait_while(self, wanted: Callable[[], bool]) -> None:
        """As :meth:`Outage.wait_while`."""
        self._outage.wait_while(wanted)

    def sent_states(self, last: int | None) -> Hidden:
        """What was sent of the last positions, or of all, decoded: float32 (positions, width)."""
        count = self._sent.length if last is None else min(last, self._sent.length)
        if not count:
            return np.zeros((0, self._width), np.float32)
        encoded = self._sent.read(self._sent.length - count, count)
        return decode(encoded.payload, self._codec, count, self._width, scaled=encoded.scaled)

    def truncate(self, length: int) -> None:
        """Forget the positions from ``length`` on; the next chunk's start tells the trunk.

        Raises:
            UsageError: replies are still in flight.
        """
        if self._unanswered:
            raise UsageError("replies are in flight: receive them before truncating")
        self._sent.truncate(length)

    def send(self, start: int, hidden: Hidden, *, reply: int) -> None:
        """Send a chunk; a lost connection is mended by the next :meth:`receive`.

        Args:
            start: Position of the first row, at most :attr:`length`.
            hidden: float32 (tokens, width), tokens at least 1.
            reply: How many of the last rows should come back.

        Raises:
            RequestError: the hidden states are not finite or do not fit the codec.
            ProtocolError: the server broke the protocol.
            RemoteError: the server objected in a way that this version does not know.
            UsageError: the session was closed.
        """
        self._check_open()
        encoded = encode(hidden, self._codec)
        self._sent.append(start, len(hidden), encoded)
        self._unanswered += _Piece(start, len(hidden), reply).split(self.chunk_tokens)
        try:
            self._send_waiting()
        except (LinkError, ServerError) as error:
            self._interrupt(error)

    def receive(self) -> Hidden:
        """The reply to the oldest chunk in flight, reconnecting and replaying as needed.

        Returns:
            float32 (reply, width).

        Raises:
            RequestError: the server rejected the chunk; it and what followed it is forgotten.
            ConnectionLost: given up after :attr:`RetryPolicy.give_up_after_s`.
            Refused: a server that answers now does not serve this bundle.
            ProtocolError: the server broke the protocol.
            RemoteError: the server objected in a way that this version does not know.
            UsageError: no chunk is in flight, or the session was closed.
        """
        self._check_open()
        self._outage.await_progress()
        while True:
            try:
                if self._connection is None:
                    self._outage.pause()
                    self._check_open()  # another thread may have closed it meanwhile
                    self._reconnect()
                    self._check_open()
                hidden = self._receive_once()
            except (LinkError, ServerError, CapacityRefused) as error:
                self._interrupt(error)
                self._outage.give_up(error)
            except LambdaSplitError:
                self.abandon()
                self._check_open()  # another thread may have closed it meanwhile
                raise
            else:
                self._outage.over()
                return hidden

    def abandon(self) -> None:
        """Forget the chunks in flight: the trunk holds what came before them."""
        if self._unanswered:
            self._sent.truncate(self._unanswered[0].start)
            self._unanswered.clear()
        self._replies.clear()
        # Replies to later chunks may be on their way; a fresh connection has none.
        self._disconnect()
        self._outage.forget()

    def close(self) -> None:
        """End the session for good; the trunk frees its cache."""
        self._closed = True
        self._disconnect()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("this session was closed: open another one")

    def _receive_once(self) -> Hidden:
        """Receive the pieces of the oldest chunk that are still missing."""
        connection = self._connection
        if connection is None or not self._unanswered:
            raise UsageError("no chunk is in flight")
        ends_chunk = False
        while not ends_chunk:
            self._send_waiting()
            frame = connection.receive()
            ends_chunk = self._unanswered.popleft().ends_chunk
            self._replies.append(
                decode(frame.payload, frame.codec, frame.tokens, self._width, scaled=frame.scaled)
            )
        replies, self._replies = self._replies, []
        return replies[0] if len(replies) == 1 else np.concatenate(replies)  # (reply, width)

    def _send_waiting(self) -> None:
        """Send pieces as far as the server takes more; none while there is no connection."""
        connection = self._connection
        if connection is None:
            return
        while connection.in_flight < min(len(self._unanswered), connection.max_in_flight):
            self._send_piece(connection, self._unanswered[connection.in_flight])

    def _send_piece(self, connection: Connection, piece: _Piece) -> None:
        encoded = self._sent.read(piece.start, piece.tokens)
        connection.send(piece.start, piece.tokens, encoded, reply=piece.reply)

    def _interrupt(self, error: LambdaSplitError) -> None:
        self._outage.met(error)
        self._disconnect()

    def _disconnect(self) -> None:
        # Forgotten first, so that it cannot be used again if closing is interrupted.
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self, replay_positions: int = 0) -> Connection:
        connection = Connection(
            self._endpoint,
            msgspec.structs.replace(self._hello, replay_positions=replay_positions),
            max_chunk_tokens=self._wanted_chunk_tokens,
            meter=self._meter,
        )
        # Another replica may take smaller frames than the one before, or larger ones.
        self.chunk_tokens = connection.max_chunk_tokens
        return connection

    def _reconnect(self) -> None:
        """Connect and send again what was answered, without replies; the rest is then sent anew."""
        answered = self._unanswered[0].start if self._unanswered else self._sent.length
        connection = self._connection = self._connect(answered)
        self._meter.reconnects += 1
        if answered:
            for piece in _Piece(0, answered, reply=0).split(self.chunk_tokens):
                while connection.in_flight >= connection.max_in_flight:
                    connection.receive()
                self._send_piece(connection, piece)
        while connection.in_flight:
            connection.receive()
        self._unanswered = collections.deque(
            smaller for piece in self._unanswered for smaller in piece.split(self.chunk_tokens)
        )
        logger.info("session resumed as %s, %d positions replayed", connection.session_id, answered)

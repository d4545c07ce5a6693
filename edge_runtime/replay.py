"""The trunk as the device sees it: one that never forgets.

The device is the source of truth. :class:`ReplayingTrunk` keeps what it sent, exactly as it went
over the wire; when the connection is lost, the server restarts, or another replica answers, it
reconnects with backoff, sends all of it again (without asking for replies) and goes on.
"""

from __future__ import annotations

import collections
import logging
import random
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.connection import Connection, Endpoint, make_hello
from edge_runtime.stats import Meter
from lambda_split.bundle import Manifest
from lambda_split.errors import (
    CapacityRefused,
    ConnectionLost,
    LambdaSplitError,
    LinkError,
    ServerError,
    UsageError,
)
from lambda_split.wire.codecs import Encoded, decode, encode
from lambda_split.wire.frames import Codec

__all__ = ["ReplayingTrunk", "RetryPolicy", "SentRows"]

logger = logging.getLogger(__name__)

Hidden = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RetryPolicy:
    """How hard to try when the connection is lost.

    Attributes:
        first_delay_s: Pause before the second attempt; the first comes at once.
        factor: Each pause is that much longer than the one before, with full jitter.
        max_delay_s: The longest pause.
        give_up_after_s: Without any progress for that long, the error is raised.
    """

    first_delay_s: float = 0.05
    factor: float = 2.0
    max_delay_s: float = 5.0
    give_up_after_s: float = 300.0

    def delay_s(self, attempt: int) -> float:
        """The pause before an attempt, the first being 0: exponential backoff with jitter."""
        if attempt == 0:
            return 0.0
        # The exponent is bounded so that a long outage cannot overflow the power.
        ceiling = min(self.max_delay_s, self.first_delay_s * self.factor ** min(attempt - 1, 32))
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311  # spreads reconnects, guards nothing


class SentRows:
    """The rows that were sent, as they went over the wire, one for each position.

    A row is appended once and never encoded again, so that a replay sends the same bytes.
    """

    def __init__(self, codec: Codec, width: int) -> None:
        self._codec = codec
        self._row_bytes = width * codec.value_bytes
        self._rows = bytearray()
        self._exponents = bytearray()  # int8 each, 0 for unscaled rows

    @property
    def length(self) -> int:
        """Positions held."""
        return len(self._exponents)

    def append(self, start: int, tokens: int, encoded: Encoded) -> None:
        """Cut back to ``start`` and append a chunk."""
        self.truncate(start)
        split = tokens if encoded.scaled else 0
        self._exponents += encoded.payload[:split] if encoded.scaled else bytes(tokens)
        self._rows += memoryview(encoded.payload)[split:]

    def truncate(self, length: int) -> None:
        """Forget the positions from ``length`` on."""
        del self._exponents[length:]
        del self._rows[length * self._row_bytes :]

    def read(self, start: int, tokens: int) -> Encoded:
        """The payload of consecutive positions."""
        exponents = bytes(self._exponents[start : start + tokens])
        rows = bytes(self._rows[start * self._row_bytes : (start + tokens) * self._row_bytes])
        scaled = any(exponents)
        return Encoded(exponents + rows if scaled else rows, scaled)


@dataclass(frozen=True)
class _Chunk:
    start: int
    tokens: int
    reply: int


class ReplayingTrunk:
    """Sends chunks and receives their replies, over as many connections as it takes.

    Attributes:
        length: Positions that the trunk holds, or will after a replay.
        max_positions: Positions of the session.
        chunk_tokens: The most positions of one chunk.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        manifest: Manifest,
        meter: Meter,
        *,
        codecs: tuple[Codec, ...],
        max_positions: int,
        chunk_tokens: int,
        retry: RetryPolicy,
    ) -> None:
        """Connect once, without retrying, so that a wrong setting is told at once.

        Raises:
            LinkError: the server cannot be reached.
            Refused: the handshake failed.
        """
        self._endpoint = endpoint
        self._manifest = manifest
        self._meter = meter
        self._retry = retry
        self._width = manifest.geometry.hidden_size
        self._codecs = codecs
        self.max_positions = max_positions
        self.chunk_tokens = chunk_tokens
        self._unanswered: collections.deque[_Chunk] = collections.deque()
        self._connection: Connection | None = self._connect()
        # A later server must do the codec that the kept rows are in.
        self._codecs = (self._connection.codec,)
        self._sent = SentRows(self._connection.codec, self._width)

    @property
    def length(self) -> int:
        """Positions that the trunk holds, or will after a replay."""
        return self._sent.length

    @property
    def codec(self) -> Codec:
        """The codec agreed on."""
        return self._codecs[0]

    @property
    def in_flight(self) -> int:
        """Chunks whose reply was not received yet."""
        return len(self._unanswered)

    @property
    def max_in_flight(self) -> int:
        """Chunks that may be in flight; 1 while there is no connection."""
        return self._connection.max_in_flight if self._connection is not None else 1

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
            hidden: float32 (tokens, width), at most :attr:`chunk_tokens` rows.
            reply: How many of the last rows should come back.

        Raises:
            RequestError: the hidden states are not finite or do not fit the codec.
        """
        encoded = encode(hidden, self.codec)
        self._sent.append(start, len(hidden), encoded)
        self._unanswered.append(_Chunk(start, len(hidden), reply))
        if self._connection is None:
            return
        try:
            self._connection.send(start, len(hidden), encoded, reply=reply)
        except (ConnectionLost, ServerError) as error:
            self._drop(error)

    def receive(self) -> Hidden:
        """The reply to the oldest chunk in flight, reconnecting and replaying as needed.

        Returns:
            float32 (reply, width).

        Raises:
            RequestError: the server rejected the chunk; it and what followed it is forgotten.
            ConnectionLost: given up after :attr:`RetryPolicy.give_up_after_s`.
            Refused: a server that answers now does not serve this bundle.
        """
        deadline = time.monotonic() + self._retry.give_up_after_s
        attempt = 0
        while True:
            try:
                if self._connection is None:
                    time.sleep(self._retry.delay_s(attempt))
                    attempt += 1
                    self._reconnect()
                return self._receive_once()
            except (LinkError, ServerError, CapacityRefused) as error:
                self._drop(error)
                if time.monotonic() > deadline:
                    reason = f"{error}; gave up after {self._retry.give_up_after_s:g} s"
                    raise ConnectionLost(reason) from error
            except LambdaSplitError:
                self.abandon()
                raise

    def close(self) -> None:
        """End the session; the trunk frees its cache."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _receive_once(self) -> Hidden:
        connection = self._connection
        if connection is None or not self._unanswered:
            raise UsageError("no chunk is in flight")
        frame = connection.receive()
        self._unanswered.popleft()
        return decode(frame.payload, frame.codec, frame.tokens, self._width, scaled=frame.scaled)

    def abandon(self) -> None:
        """Forget the chunks in flight: the trunk holds what came before them."""
        if self._unanswered:
            self._sent.truncate(self._unanswered[0].start)
            self._unanswered.clear()
        # Replies to later chunks may be on their way; a fresh connection has none.
        self.close()

    def _drop(self, error: LambdaSplitError) -> None:
        if self._connection is not None:
            # Said once an outage: further attempts come here without a connection.
            logger.warning("session interrupted (%s), reconnecting", error)
        self.close()

    def _connect(self) -> Connection:
        hello = make_hello(self._manifest, self._codecs, self.max_positions)
        connection = Connection(
            self._endpoint, hello, max_chunk_tokens=self.chunk_tokens, meter=self._meter
        )
        self.chunk_tokens = min(self.chunk_tokens, connection.max_chunk_tokens)
        return connection

    def _reconnect(self) -> None:
        """Connect, send again what was answered (no replies), then what was not (with replies)."""
        connection = self._connect()
        self._connection = connection
        self._meter.reconnects += 1
        answered = self._unanswered[0].start if self._unanswered else self._sent.length
        step = self.chunk_tokens
        replayed = [
            _Chunk(start, min(step, answered - start), reply=0)
            for start in range(0, answered, step)
        ]
        for chunk in replayed:
            while connection.in_flight >= connection.max_in_flight:
                connection.receive()
            self._resend(connection, chunk)
        while connection.in_flight:
            connection.receive()
        for chunk in self._unanswered:
            self._resend(connection, chunk)
        logger.info("session resumed as %s, %d positions replayed", connection.session_id, answered)

    def _resend(self, connection: Connection, chunk: _Chunk) -> None:
        encoded = self._sent.read(chunk.start, chunk.tokens)
        connection.send(chunk.start, chunk.tokens, encoded, reply=chunk.reply)

"""One connection to the trunk service: handshake, forwards, replies. No retries in here."""

from __future__ import annotations

import lambda_split
from edge_runtime.dialogue import next_answer, shake_hands
from edge_runtime.endpoint import Endpoint
from edge_runtime.link import MOST_IN_FLIGHT, Link
from edge_runtime.stats import Meter
from lambda_split.bundle import Manifest
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.frames import HEADER_BYTES, PROTOCOL_VERSION, Codec, Frame, payload_bytes
from lambda_split.wire.messages import MAX_MESSAGE_BYTES, Hello
from lambda_split.wire.session import DeviceSession

__all__ = ["Connection", "Endpoint", "make_hello"]


def make_hello(manifest: Manifest, codecs: tuple[Codec, ...], max_positions: int) -> Hello:
    """The hello that a bundle's manifest implies."""
    return Hello(
        protocol=PROTOCOL_VERSION,
        fingerprint=manifest.model.fingerprint,
        witnesses=manifest.model.witnesses,
        head_layers=manifest.split.head_layers,
        tail_layers=manifest.split.tail_layers,
        hidden_size=manifest.geometry.hidden_size,
        codecs=tuple(codec.label for codec in codecs),
        max_positions=max_positions,
        agent=f"lambda-split-python/{lambda_split.__version__}",
    )


class Connection:
    """An open session on one WebSocket connection.

    Not thread-safe: one thread sends and receives.
    """

    def __init__(
        self, endpoint: Endpoint, hello: Hello, *, max_chunk_tokens: int, meter: Meter
    ) -> None:
        """Connect and shake hands.

        Args:
            endpoint: Where the trunk is.
            hello: What the device needs.
            max_chunk_tokens: The most positions this device will send in one frame.
            meter: Counts the bytes.

        Raises:
            ServerUnreachable: no connection.
            CapacityRefused: the server is full, or answered HTTP 503.
            TlsError: the server's certificate is not to be trusted, or only one side speaks TLS.
            Unauthorized: the server does not know the token.
            TokenMissing: there is none, and the server wants one.
            TokenRevoked: the server takes it no more.
            Refused: the handshake failed.
            ServerError: the server is shutting down, or in trouble.
            ProtocolError: the server broke the protocol.
            RemoteError: an error that this version does not know.
            ConnectionLost: it broke during the handshake.
        """
        self._timeout_s = endpoint.reply_timeout_s
        self._meter = meter
        self._session = DeviceSession(hello)
        longest = _largest_reply(hello, max_chunk_tokens)
        self._link = Link(endpoint, longest_message=longest, meter=meter)
        welcome = shake_hands(self._link, self._session, endpoint.connect_timeout_s)
        self.codec = self._session.codec
        self.max_chunk_tokens = min(max_chunk_tokens, welcome.max_chunk_tokens)
        self.max_in_flight = min(welcome.max_in_flight, MOST_IN_FLIGHT)
        self.session_id = welcome.session

    @property
    def in_flight(self) -> int:
        """Forwards that wait for their reply."""
        return self._session.in_flight

    def send(self, start: int, tokens: int, encoded: Encoded, *, reply: int) -> None:
        """Send a chunk, without waiting until a slow link has taken it.

        Raises:
            WireError: the server closed, and said why.
            ConnectionLost: the connection broke, or the server does not read.
        """
        self._send(self._session.forward(start, tokens, encoded, reply=reply))

    def receive(self) -> Frame:
        """Wait for the reply to the oldest forward in flight.

        Raises:
            RequestError: the server rejected that forward; the session goes on.
            ServerError: the server ended the session.
            ProtocolError: one side broke the protocol.
            RemoteError: the server objected in a way that this version does not know.
            ConnectionLost: the connection broke, or the reply took too long.
        """
        return next_answer(self._link, self._session, self._timeout_s, self._meter)

    def close(self) -> None:
        """Say bye and close, or cut it off where forwards are in flight; never raises."""
        self._link.close(None if self._session.in_flight else self._session.close)

    def _send(self, message: str | bytes) -> None:
        self._link.send(message, self._session.receive_text)


def _largest_reply(hello: Hello, max_chunk_tokens: int) -> int:
    frame = HEADER_BYTES + payload_bytes(
        Codec.FP32, max_chunk_tokens, hello.hidden_size, scaled=True
    )
    return max(frame, MAX_MESSAGE_BYTES)

"""One connection to a service of a denoiser: handshake, pictures, steps. No retries in here."""

from __future__ import annotations

from edge_runtime.dialogue import next_answer, shake_hands
from edge_runtime.endpoint import Endpoint
from edge_runtime.link import MOST_IN_FLIGHT, Link
from edge_runtime.stats import Meter
from lambda_split.wire.frames import HEADER_BYTES
from lambda_split.wire.messages import MAX_MESSAGE_BYTES, PictureHello
from lambda_split.wire.pictures.device_session import PictureDeviceSession
from lambda_split.wire.pictures.frames import PictureFrame
from lambda_split.wire.pictures.settings import PictureSettings
from lambda_split.wire.tensor_format import TensorFormat

__all__ = ["PictureConnection"]


class PictureConnection:
    """An open session on one WebSocket connection.

    Not thread-safe: one thread sends and receives.
    """

    def __init__(
        self, endpoint: Endpoint, hello: PictureHello, *, longest_answer: int, meter: Meter
    ) -> None:
        """Connect and shake hands.

        Args:
            endpoint: Where the trunk is.
            hello: What the device needs.
            longest_answer: Bytes of the longest payload that a step may bring back.
            meter: Counts the bytes.

        Raises:
            LinkError, TlsError, CapacityRefused, Unauthorized, TokenMissing, TokenRevoked: as for
                :class:`~edge_runtime.link.Link`.
            Refused: the handshake failed.
            ServerError: the server is shutting down, or in trouble.
            ProtocolError: the server broke the protocol.
            RemoteError: an error that this version does not know.
        """
        self._timeout_s = endpoint.reply_timeout_s
        self._meter = meter
        self._session = PictureDeviceSession(hello)
        longest = max(HEADER_BYTES + longest_answer, MAX_MESSAGE_BYTES)
        self._link = Link(endpoint, longest_message=longest, meter=meter)
        welcome = shake_hands(self._link, self._session, endpoint.connect_timeout_s)
        self.format = self._session.format
        self.max_in_flight = min(welcome.max_in_flight, MOST_IN_FLIGHT)
        self.session_id = welcome.session

    @property
    def in_flight(self) -> int:
        """Frames that wait for their answer."""
        return self._session.in_flight

    def begin(
        self, settings: PictureSettings, conditioning: bytes, form: TensorFormat, *, tensors: int
    ) -> None:
        """Begin a picture; see :meth:`PictureDeviceSession.picture`, and :meth:`step` for errors.

        Its answer, which is empty, is the next that :meth:`receive` returns.
        """
        self._send(self._session.picture(settings, conditioning, form, tensors=tensors))

    def step(self, step: int, payload: bytes, *, tensors: int, answer_bytes: int) -> None:
        """Ask for a step; see :meth:`PictureDeviceSession.step`.

        Raises:
            WireError: the server closed, and said why.
            ConnectionLost: the connection broke, or the server does not read.
        """
        message = self._session.step(step, payload, tensors=tensors, answer_bytes=answer_bytes)
        self._send(message)

    def receive(self) -> PictureFrame:
        """Wait for the answer to the oldest frame in flight.

        Raises:
            RequestError: the server rejected that frame; the session goes on.
            ServerError: the server ended the session.
            ProtocolError: one side broke the protocol.
            RemoteError: the server objected in a way that this version does not know.
            ConnectionLost: the connection broke, or the answer took too long.
        """
        return next_answer(self._link, self._session, self._timeout_s, self._meter)

    def close(self) -> None:
        """Say bye and close, or cut it off where answers are in flight; never raises."""
        self._link.close(None if self._session.in_flight else self._session.close)

    def _send(self, message: str | bytes) -> None:
        self._link.send(message, self._session.receive_text)

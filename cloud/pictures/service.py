"""A denoiser, as a server serves it; see :mod:`cloud.conversation`."""

from __future__ import annotations

from dataclasses import dataclass

from cloud.conversation import AnyHello, Terms
from cloud.engine import SessionCache
from cloud.jobs import Request
from cloud.pictures.engine import DenoisingEngine
from cloud.pictures.works import PictureRequest
from lambda_split.errors import KindRefused, RequestError, UnexpectedMessage
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.frames import HEADER_BYTES
from lambda_split.wire.messages import Bye, Hello, PictureHello, Welcome
from lambda_split.wire.pictures.handshake import (
    AcceptedPictures,
    PictureOffer,
    accept_picture_hello,
)
from lambda_split.wire.pictures.server_session import (
    PictureServerSession,
    PictureStart,
    PictureStep,
    longest_payload,
)
from lambda_split.wire.pictures.settings import MAX_STEPS
from lambda_split.wire.session import State
from lambda_split.wire.tensor_format import Base, TensorFormat

__all__ = ["DenoiserService"]


@dataclass(frozen=True)
class DenoiserService:
    """A denoiser; see :class:`~cloud.conversation.ModelKind`.

    Attributes:
        engine: Runs it.
        offer: What the handshake compares with.
    """

    engine: DenoisingEngine
    offer: PictureOffer

    @property
    def max_positions(self) -> int:
        """The most steps of a picture."""
        return MAX_STEPS

    @property
    def longest_message(self) -> int:
        """Bytes of the longest message that any session may send."""
        largest = AcceptedPictures(
            split="whole",
            format=TensorFormat(Base.FP32),
            max_latents=self.offer.max_latents,
            max_context=self.offer.max_context,
            max_steps=MAX_STEPS,
        )
        return HEADER_BYTES + longest_payload(largest, self.offer.geometry)

    def conversation(self) -> _PictureConversation:
        """For a new connection."""
        return _PictureConversation(self)


class _PictureConversation:
    """See :class:`~cloud.conversation.Conversation`."""

    def __init__(self, service: DenoiserService) -> None:
        self._service = service
        self._session = PictureServerSession(service.offer.geometry)
        self._accepted: AcceptedPictures | None = None

    @property
    def state(self) -> State:
        return self._session.state

    def receive_text(self, text: str) -> Hello | PictureHello | Bye:
        return self._session.receive_text(text)

    def agree(self, hello: AnyHello) -> Terms:
        if isinstance(hello, Hello):
            raise KindRefused("a language model", "pictures")
        offer = self._service.offer
        accepted = self._accepted = accept_picture_hello(hello, offer)
        return Terms(
            codec=accepted.format.label,
            positions=accepted.max_steps,
            replayed=accepted.resumed_step,
            longest_message=HEADER_BYTES + longest_payload(accepted, offer.geometry),
            facts={"split": accepted.split, "latents": accepted.max_latents},
        )

    def make_room(self) -> SessionCache:
        return self._service.engine.open(self._terms())

    def open(self, welcome: Welcome) -> str:
        return self._session.accept(welcome, self._terms())

    def receive_binary(self, message: bytes) -> PictureStart | PictureStep:
        return self._session.receive_binary(message)

    def request(self, asked: PictureStart | PictureStep) -> Request:
        return PictureRequest(asked, self._service.offer.geometry)

    @property
    def last_sequence(self) -> int:
        return self._session.last_sequence

    def reject(self, sequence: int, error: RequestError) -> str:
        return self._session.reject(sequence, error)

    def reply(self, asked: PictureStart | PictureStep, encoded: Encoded, micros: int) -> bytes:
        return self._session.reply(asked, encoded, micros)

    def _terms(self) -> AcceptedPictures:
        if self._accepted is None:
            raise UnexpectedMessage("a session without terms", self.state.value)
        return self._accepted

"""A denoiser, as a server serves it; see :mod:`cloud.conversation`."""

from __future__ import annotations

from dataclasses import dataclass

from cloud.conversation import AnyHello, Terms
from cloud.engine import SessionCache
from cloud.jobs import Request
from cloud.pictures.engine import DenoisingEngine
from cloud.pictures.works import PictureRequest
from lambda_split.errors import KindRefused, UnexpectedMessage
from lambda_split.wire.frames import HEADER_BYTES
from lambda_split.wire.messages import Hello, Welcome
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


class _PictureConversation(PictureServerSession):
    """See :class:`~cloud.conversation.Conversation`."""

    def __init__(self, service: DenoiserService) -> None:
        super().__init__(service.offer.geometry)
        self._service = service
        self._agreed: AcceptedPictures | None = None

    def agree(self, hello: AnyHello) -> Terms:
        if isinstance(hello, Hello):
            raise KindRefused("a language model", "pictures")
        offer = self._service.offer
        accepted = self._agreed = accept_picture_hello(hello, offer)
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
        return self.accept(welcome, self._terms())

    def request(self, asked: PictureStart | PictureStep) -> Request:
        return PictureRequest(asked, self._service.offer.geometry)

    def _terms(self) -> AcceptedPictures:
        if self._agreed is None:
            raise UnexpectedMessage("a session without terms", self.state.value)
        return self._agreed

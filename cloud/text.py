"""Language models, as a server serves them: hidden states in, hidden states out."""

from __future__ import annotations

from dataclasses import dataclass

from cloud.conversation import AnyHello, Terms
from cloud.engine import Engine, SessionCache
from cloud.forwards import Forward
from cloud.jobs import Request
from lambda_split.errors import KindRefused, UnexpectedMessage
from lambda_split.wire.frames import HEADER_BYTES, Codec, Frame, payload_bytes
from lambda_split.wire.handshake import Accepted, ServerOffer, accept_hello
from lambda_split.wire.messages import MAX_MESSAGE_BYTES, PictureHello, Welcome
from lambda_split.wire.session import ServerSession

__all__ = ["LanguageModel", "longest_forward"]


def longest_forward(width: int, max_chunk_tokens: int) -> int:
    """Bytes of the longest legal message: a full chunk in the widest codec, or a long hello."""
    payload = payload_bytes(Codec.FP32, max_chunk_tokens, width, scaled=True)
    return max(HEADER_BYTES + payload, MAX_MESSAGE_BYTES)


@dataclass(frozen=True)
class LanguageModel:
    """A trunk of decoder layers; see :class:`~cloud.conversation.ModelKind`.

    Attributes:
        engine: Runs it.
        offer: What the handshake compares with.
        max_chunk_tokens: The most positions of one frame.
    """

    engine: Engine
    offer: ServerOffer
    max_chunk_tokens: int = 512

    @property
    def max_positions(self) -> int:
        """The most positions of a session."""
        return self.offer.max_positions

    @property
    def longest_message(self) -> int:
        """Bytes of the longest message that a session may send."""
        return longest_forward(self.offer.hidden_size, self.max_chunk_tokens)

    def conversation(self) -> _TextConversation:
        """For a new connection."""
        return _TextConversation(self)


class _TextConversation(ServerSession):
    """See :class:`~cloud.conversation.Conversation`."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self._model = model
        self._agreed: tuple[Accepted, int] | None = None

    def agree(self, hello: AnyHello) -> Terms:
        if isinstance(hello, PictureHello):
            raise KindRefused("pictures", "a language model")
        accepted = accept_hello(hello, self._model.offer)
        self._agreed = accepted, min(hello.replay_positions, accepted.max_positions)
        return Terms(
            codec=accepted.codec.label,
            positions=accepted.max_positions,
            replayed=hello.replay_positions,
            longest_message=self._model.longest_message,
            facts={
                "first_layer": accepted.layers.start,
                "last_layer": accepted.layers.stop - 1,
            },
        )

    def make_room(self) -> SessionCache:
        accepted, expected = self._terms()
        return self._model.engine.open(accepted.layers, accepted.max_positions, expected)

    def open(self, welcome: Welcome) -> str:
        accepted, _ = self._terms()
        return self.accept(welcome, accepted.codec, self._model.offer.hidden_size)

    def request(self, asked: Frame) -> Request:
        engine = self._model.engine
        return Forward(asked, engine.width, engine.dtype)

    def _terms(self) -> tuple[Accepted, int]:
        if self._agreed is None:
            raise UnexpectedMessage("a session without terms", self.state.value)
        return self._agreed

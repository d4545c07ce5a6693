"""Language models, as a server serves them: hidden states in, hidden states out."""

from __future__ import annotations

from dataclasses import dataclass

from cloud.conversation import AnyHello, Terms
from cloud.engine import Engine, SessionCache
from cloud.forwards import Forward
from cloud.jobs import Request
from lambda_split.errors import KindRefused, RequestError, UnexpectedMessage
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.frames import HEADER_BYTES, Codec, Frame, payload_bytes
from lambda_split.wire.handshake import Accepted, ServerOffer, accept_hello
from lambda_split.wire.messages import MAX_MESSAGE_BYTES, Bye, Hello, PictureHello, Welcome
from lambda_split.wire.session import ServerSession, State

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


class _TextConversation:
    """See :class:`~cloud.conversation.Conversation`."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._session = ServerSession()
        self._agreed: tuple[Accepted, int] | None = None

    @property
    def state(self) -> State:
        return self._session.state

    def receive_text(self, text: str) -> Hello | PictureHello | Bye:
        return self._session.receive_text(text)

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
        return self._session.accept(welcome, accepted.codec, self._model.offer.hidden_size)

    def receive_binary(self, message: bytes) -> Frame:
        return self._session.receive_binary(message)

    def request(self, asked: Frame) -> Request:
        engine = self._model.engine
        return Forward(asked, engine.width, engine.dtype)

    @property
    def last_sequence(self) -> int:
        return self._session.last_sequence

    def reject(self, sequence: int, error: RequestError) -> str:
        return self._session.reject(sequence, error)

    def reply(self, asked: Frame, encoded: Encoded, micros: int) -> bytes:
        return self._session.reply(asked, encoded, micros)

    def _terms(self) -> tuple[Accepted, int]:
        if self._agreed is None:
            raise UnexpectedMessage("a session without terms", self.state.value)
        return self._agreed

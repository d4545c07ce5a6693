"""Control messages: JSON text frames, rare and small.

``hello`` (device) and ``welcome`` (server) open a session, ``error`` rejects something, ``bye``
ends it. Unknown fields are ignored so that either side may be newer; every field has bounds.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lambda_split.digests import Digest, Witnesses
from lambda_split.errors import MessageMalformed, WireError, error_from_wire

__all__ = [
    "MAX_MESSAGE_BYTES",
    "Bye",
    "ControlMessage",
    "ErrorMessage",
    "Hello",
    "PictureHello",
    "Welcome",
    "message_type",
    "parse_message",
    "serialize_message",
]

MAX_MESSAGE_BYTES = 16 * 1024

U32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
ShortText = Annotated[str, Meta(max_length=256)]
LongText = Annotated[str, Meta(max_length=2048)]
CodecLabel = Annotated[str, Meta(max_length=32)]
# Lengths in errors may exceed 32 bits; every JSON reader keeps integers up to 2**53 - 1.
Fact = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello", tag_field="type"):
    """The device's first message.

    Attributes:
        protocol: The protocol version that the device speaks.
        fingerprint: Identity of the checkpoint that the bundle was cut from.
        witnesses: Digests of some trunk tensors; the server compares those it holds.
        head_layers: *h* of the split.
        tail_layers: *t* of the split.
        hidden_size: Width of the hidden states.
        codecs: Codecs the device can do, in its order of preference.
        max_positions: Positions that the session needs.
        agent: Name and version of the device's software, for the server's log.
        replay_positions: Positions that an earlier connection's trunk held, which this device sends
            again before anything else; 0 for a new session.
    """

    protocol: U32
    fingerprint: Digest
    head_layers: U32
    tail_layers: U32
    hidden_size: U32
    codecs: Annotated[tuple[CodecLabel, ...], Meta(max_length=16)]
    max_positions: U32
    witnesses: Witnesses = {}
    agent: ShortText = ""
    replay_positions: U32 = 0


class PictureHello(
    msgspec.Struct, frozen=True, kw_only=True, tag="picture-hello", tag_field="type"
):
    """The first message of a device that makes pictures.

    Attributes:
        protocol: The protocol version that the device speaks.
        fingerprint: Identity of the pipeline that the bundle was made from.
        split: ``whole`` where the trunk is the whole denoiser, ``deep`` where the device keeps the
            denoiser's first and last blocks.
        formats: Tensor formats the device can do, in its order of preference.
        latents: The most latent positions of a picture: images × height × width.
        context: The most positions of conditioning: prompts, negative ones included, × tokens.
        steps: The most steps of a picture.
        witnesses: Digests of some of the denoiser's tensors; the server compares those it holds.
        agent: Name and version of the device's software, for the server's log.
        resumed_step: The step at which an earlier connection was lost, from which this device goes
            on; 0 for a new session.
    """

    protocol: U32
    fingerprint: Digest
    split: Literal["whole", "deep"]
    formats: Annotated[tuple[CodecLabel, ...], Meta(max_length=64)]
    latents: U32
    context: U32
    steps: U32
    witnesses: Witnesses = {}
    agent: ShortText = ""
    resumed_step: U32 = 0


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome", tag_field="type"):
    """The server's answer to a hello that it accepts.

    Attributes:
        session: A random id, for logs on both sides; it grants nothing.
        codec: The codec chosen, for both directions; of pictures the tensor format.
        max_positions: Positions that this session may use; of pictures the steps.
        max_chunk_tokens: The most positions one frame may carry.
        max_in_flight: The most forwards that may wait for their replies.
        agent: Name and version of the server's software.
    """

    session: ShortText
    codec: ShortText
    max_positions: U32
    max_chunk_tokens: Annotated[int, Meta(ge=1, le=1 << 20)]
    max_in_flight: Annotated[int, Meta(ge=1, le=1024)] = 1
    agent: ShortText = ""


class ErrorMessage(msgspec.Struct, frozen=True, kw_only=True, tag="error", tag_field="type"):
    """A typed error.

    Attributes:
        code: The error's name in the protocol.
        message: A sentence for people.
        fields: The error's facts.
        sequence: The forward that it answers; None where it ends the connection.
    """

    code: ShortText
    message: LongText
    fields: Annotated[dict[ShortText, Fact | LongText], Meta(max_length=16)] = {}
    sequence: U32 | None = None

    @classmethod
    def from_error(cls, error: WireError, sequence: int | None = None) -> ErrorMessage:
        """The message that carries ``error``."""
        return cls(
            code=error.code, message=str(error), fields=error.wire_fields(), sequence=sequence
        )

    def to_error(self) -> WireError:
        """The typed error that this message carries.

        Its sentences end up in terminals and logs, where control characters could move the cursor
        or fake a line: those come as U+FFFD.
        """
        fields: dict[str, object] = {
            name: _printable(value) if isinstance(value, str) else value
            for name, value in self.fields.items()
        }
        return error_from_wire(_printable(self.code), fields, _printable(self.message))


class Bye(msgspec.Struct, frozen=True, kw_only=True, tag="bye", tag_field="type"):
    """The sender is done; the connection closes without anything being wrong."""

    reason: ShortText = ""


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


ControlMessage = Hello | PictureHello | Welcome | ErrorMessage | Bye

_DECODER: msgspec.json.Decoder[ControlMessage] = msgspec.json.Decoder(ControlMessage)


def message_type(message: ControlMessage) -> str:
    """The message's ``type`` field."""
    return str(message.__struct_config__.tag)


def serialize_message(message: ControlMessage) -> str:
    """The text frame of a control message."""
    return msgspec.json.encode(message).decode()


def parse_message(text: str | bytes) -> ControlMessage:
    """Read one text frame.

    Raises:
        MessageMalformed: too long, not JSON, an unknown type, or a field missing or out of bounds.
    """
    try:
        data = text.encode() if isinstance(text, str) else text
        if len(data) > MAX_MESSAGE_BYTES:
            raise MessageMalformed(f"{len(data)} bytes, the limit is {MAX_MESSAGE_BYTES}")
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MessageMalformed(str(error)[:200]) from error

"""The handshake's rules: what a server offers, and whether a hello fits it.

Pure functions; any mismatch is a typed refusal before a hidden state is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lambda_split.errors import (
    CodecRefused,
    FingerprintRefused,
    PositionsRefused,
    SplitRefused,
    VersionRefused,
    WidthRefused,
)
from lambda_split.wire.frames import PROTOCOL_VERSION, Codec
from lambda_split.wire.messages import Hello, PictureHello

__all__ = ["Accepted", "ServerOffer", "accept_hello", "check_identity"]


@dataclass(frozen=True)
class ServerOffer:
    """What one server process serves.

    Attributes:
        fingerprint: Identity of its checkpoint.
        hidden_size: Width of the hidden states.
        layer_count: Decoder layers of the whole model.
        layers: The layers it has loaded.
        max_positions: The most positions one session may have.
        witnesses: Digests of its loaded tensors by name.
        codecs: The codecs it can do.
    """

    fingerprint: str
    hidden_size: int
    layer_count: int
    layers: range
    max_positions: int
    witnesses: Mapping[str, str] = field(default_factory=dict)
    codecs: tuple[Codec, ...] = tuple(Codec)


@dataclass(frozen=True)
class Accepted:
    """What was agreed.

    Attributes:
        codec: For both directions.
        layers: The trunk of this session: the layers that its forwards run through.
        max_positions: Positions of this session.
    """

    codec: Codec
    layers: range
    max_positions: int


def check_identity(
    hello: Hello | PictureHello, *, fingerprint: str, witnesses: Mapping[str, str]
) -> None:
    """See whether a hello speaks this protocol, and is of what has this fingerprint.

    Raises:
        VersionRefused: another protocol version.
        FingerprintRefused: something else, or a tensor with another digest.
    """
    if hello.protocol != PROTOCOL_VERSION:
        raise VersionRefused(hello.protocol, PROTOCOL_VERSION)
    if hello.fingerprint != fingerprint:
        raise FingerprintRefused(hello.fingerprint, fingerprint, "fingerprint")
    for name, digest in hello.witnesses.items():
        held = witnesses.get(name)
        if held is not None and held != digest:
            raise FingerprintRefused(digest, held, f"tensor {name}")


def accept_hello(hello: Hello, offer: ServerOffer) -> Accepted:
    """Decide whether the offer serves the hello.

    Raises:
        VersionRefused: another protocol version.
        FingerprintRefused: another checkpoint.
        WidthRefused: another hidden size.
        SplitRefused: layers that are not loaded.
        CodecRefused: no codec in common.
        PositionsRefused: more positions than the server allows, or none.
    """
    check_identity(hello, fingerprint=offer.fingerprint, witnesses=offer.witnesses)
    if hello.hidden_size != offer.hidden_size:
        raise WidthRefused(hello.hidden_size, offer.hidden_size)
    layers = range(hello.head_layers, offer.layer_count - hello.tail_layers)
    if not layers or layers.start < offer.layers.start or layers.stop > offer.layers.stop:
        raise SplitRefused(
            hello.head_layers, hello.tail_layers, offer.layers.start, offer.layers.stop - 1
        )
    wanted = (Codec.from_label(label) for label in hello.codecs)
    codec = next((codec for codec in wanted if codec in offer.codecs), None)
    if codec is None:
        served = ", ".join(codec.label for codec in offer.codecs)
        raise CodecRefused(", ".join(hello.codecs) or "none", served)
    if not 1 <= hello.max_positions <= offer.max_positions:
        raise PositionsRefused(hello.max_positions, offer.max_positions)
    return Accepted(codec, layers, hello.max_positions)

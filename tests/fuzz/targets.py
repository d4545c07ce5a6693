"""What is fuzzed without a socket, and what must hold whatever comes in.

A target takes bytes and returns, or raises what it must not raise: anything but the typed errors
that the function under test promises.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lambda_split.errors import (
    CodecOverflow,
    FrameLengthMismatch,
    FrameOversized,
    MessageMalformed,
    NonFinite,
    ProtocolError,
    Refused,
)
from lambda_split.wire.codecs import decode, encode
from lambda_split.wire.frames import HEADER_BYTES, Codec, parse_frame, payload_bytes
from lambda_split.wire.handshake import ServerOffer, accept_hello
from lambda_split.wire.messages import (
    MAX_MESSAGE_BYTES,
    ErrorMessage,
    Hello,
    parse_message,
    serialize_message,
)
from tests.fuzz.picture_device import picture_device_session
from tests.fuzz.picture_server import picture_server_session
from tests.fuzz.picture_targets import picture_frames, tensor_codecs
from tests.fuzz.readings import Reading
from tests.fuzz.sessions import device_session, server_session
from tests.fuzz.telling import serializes

__all__ = ["MAX_TOKENS", "OFFER", "TARGETS", "WIDTH"]

WIDTH = 4  # that of the golden vectors, from which the corpus begins
MAX_TOKENS = 8
OFFER = ServerOffer(
    fingerprint="00112233445566778899aabbccddeeff",
    hidden_size=4096,
    layer_count=32,
    layers=range(1, 31),
    max_positions=4096,
    witnesses={"model.layers.1.mlp.up_proj.weight": "ffeeddccbbaa99887766554433221100"},
    codecs=(Codec.FP32, Codec.FP16),
)


def frames(data: bytes) -> None:
    """A frame that is taken is written back as the same bytes, and is no longer than it may be."""
    try:
        frame = parse_frame(data, width=WIDTH, max_tokens=MAX_TOKENS)
    except ProtocolError as error:
        serializes(error)
        if isinstance(error, FrameOversized):
            assert len(data) >= HEADER_BYTES
        return
    assert frame.serialize() == data
    assert frame.tokens <= MAX_TOKENS
    assert len(frame.payload) == payload_bytes(
        frame.codec, frame.tokens, WIDTH, scaled=frame.scaled
    )


def messages(data: bytes) -> None:
    """A message that is taken says the same when it is written and read again."""
    # The last has halves of surrogate pairs where the bytes are no UTF-8.
    for form in (data, data.decode(errors="replace"), data.decode(errors="surrogateescape")):
        try:
            message = parse_message(form)
        except MessageMalformed as error:
            serializes(error)
            continue
        again = serialize_message(message)
        if len(again.encode()) <= MAX_MESSAGE_BYTES:
            assert parse_message(again) == message
        if isinstance(message, ErrorMessage):
            serializes(message.to_error())


def codecs(data: bytes) -> None:
    """What is read is finite and of the promised shape; written again it is read as the same."""
    reading = Reading(data)
    codec = reading.choice(tuple(Codec))
    tokens, width = reading.below(6), reading.below(5) + 1
    scaled = bool(reading.below(2))
    payload = reading.rest()
    try:
        hidden = decode(payload, codec, tokens, width, scaled=scaled)
    except (FrameLengthMismatch, NonFinite) as error:
        serializes(error)
        return
    assert hidden.shape == (tokens, width)
    assert hidden.dtype == np.float32
    assert np.isfinite(hidden).all()
    try:
        encoded = encode(hidden, codec)
    except CodecOverflow:
        assert codec is not Codec.FP32
        assert float(np.abs(hidden).max()) >= math.ldexp(1 - 2**-9, 128)
        return
    if not scaled or codec is not Codec.FP16:
        again = decode(encoded.payload, codec, tokens, width, scaled=encoded.scaled)
        if not scaled:  # an exponent may have made values that the codec itself does not have
            assert again.tobytes() == hidden.tobytes()


def handshake(data: bytes) -> None:
    """A hello is accepted as it asks, or refused by name."""
    try:
        hello = parse_message(data)
    except MessageMalformed:
        return
    if not isinstance(hello, Hello):
        return
    try:
        accepted = accept_hello(hello, OFFER)
    except Refused as error:
        serializes(error)
        return
    assert accepted.codec in OFFER.codecs
    assert accepted.codec.label in hello.codecs
    assert accepted.layers
    assert set(accepted.layers) <= set(OFFER.layers)
    assert accepted.max_positions == hello.max_positions <= OFFER.max_positions


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": frames,
    "messages": messages,
    "codecs": codecs,
    "handshake": handshake,
    "server-session": server_session,
    "device-session": device_session,
    "tensor-codecs": tensor_codecs,
    "picture-frames": picture_frames,
    "picture-server-session": picture_server_session,
    "picture-device-session": picture_device_session,
}

"""Conversations that were valid until something was changed: in a message, in a WebSocket frame, or
in the bytes of the whole connection.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from lambda_split.wire.codecs import encode
from lambda_split.wire.frames import MAX_U32, Codec, Frame, FrameKind, parse_frame
from lambda_split.wire.messages import Hello, Welcome, parse_message, serialize_message
from lambda_split.wire.session import DeviceSession
from tests.faults.raw import BINARY, TEXT, frame, upgrade
from tests.fuzz.mutations import mutate, shuffle

__all__ = [
    "Message",
    "Piece",
    "Speech",
    "changed_bytes",
    "changed_messages",
    "flipped",
    "text_speech",
]

_MAX_TOKENS = 64


@dataclass(frozen=True)
class Piece:
    """Bytes for the socket, and how many changed frames are in them."""

    data: bytes
    changed: int


@dataclass(frozen=True)
class Message:
    """What a device says, before it is put into WebSocket frames."""

    opcode: int
    payload: bytes


@dataclass(frozen=True)
class Speech:
    """How one kind of device talks.

    Attributes:
        conversation: Messages that are valid one after another, the hello first.
        gently: Changes a binary message that stays a frame.
    """

    conversation: Callable[[random.Random], list[Message]]
    gently: Callable[[bytes, random.Random], bytes]


def text_speech(hello: str, width: int) -> Speech:
    """How a device of a language model talks."""
    return Speech(partial(_conversation, hello, width), partial(_gently, width))


def _conversation(hello: str, width: int, rng: random.Random) -> list[Message]:
    """A hello, some forwards that continue, rewrite and replay, and a bye."""
    parsed = parse_message(hello)
    assert isinstance(parsed, Hello)
    device = DeviceSession(parsed)
    said = [Message(TEXT, hello.encode())]
    device.receive_text(_welcome(parsed))
    length = 0
    for _ in range(rng.randint(2, 12)):
        start = length if rng.random() < 0.7 else rng.randint(0, length)
        tokens = rng.randint(1, min(16, parsed.max_positions - start))
        hidden = np.random.default_rng(rng.randrange(1 << 30)).normal(size=(tokens, width))
        encoded = encode(hidden.astype(np.float32), Codec.FP32)
        reply = rng.choice((0, 1, tokens))
        said.append(Message(BINARY, device.forward(start, tokens, encoded, reply=reply)))
        length = start + tokens
    said.append(Message(TEXT, device.close("done").encode()))
    return said


def changed_messages(speech: Speech, rng: random.Random) -> Iterator[Piece]:
    """Well-made WebSocket frames whose messages, or whose order, are not what they should be."""
    said = speech.conversation(rng)
    if rng.random() < 0.2:
        said = shuffle(said, rng)
    payloads = [message.payload for message in said]
    hello_too = rng.random() < 0.15
    for message in said:
        draw = rng.random()
        if draw < 0.3 or (message is said[0] and not hello_too):
            yield Piece(_split(message, rng), 0)
        elif draw < 0.8 and message.opcode == BINARY:
            changed = Message(BINARY, speech.gently(message.payload, rng))
            yield Piece(_split(changed, rng), 1)
        elif draw < 0.85:
            other = TEXT if message.opcode == BINARY else BINARY
            yield Piece(frame(other, message.payload), 1)
        else:
            damaged = mutate(message.payload, rng, payloads)
            yield Piece(frame(message.opcode, damaged), 1)


def changed_bytes(speech: Speech, address: tuple[str, int], rng: random.Random) -> Iterator[Piece]:
    """Damage to the WebSocket frames themselves, or to the request before them."""
    said = speech.conversation(rng)
    request = upgrade(address)
    frames = [frame(message.opcode, message.payload) for message in said]
    if rng.random() < 0.3:
        yield Piece(mutate(request, rng, frames), 0)
    else:
        yield Piece(request, 0)
        if rng.random() < 0.7:
            yield Piece(frames.pop(0), 0)  # let in first
    for data in frames:
        if rng.random() < 0.5:
            # The first bytes are the frame's own header; what is behind it is the message.
            yield Piece(mutate(data[:14], rng, frames) + data[14:], 1)
        else:
            yield Piece(mutate(data, rng, frames), 1)


def _gently(width: int, payload: bytes, rng: random.Random) -> bytes:
    """A forward that is still a frame: what is wrong with it concerns it alone, if at all."""
    parsed = parse_frame(payload, width=width, max_tokens=_MAX_TOKENS)
    number = rng.choice((0, 1, rng.randint(0, 300), rng.randint(0, MAX_U32), MAX_U32))
    match rng.randrange(6):
        case 0:
            changed = replace(parsed, start=number)
        case 1:
            changed = replace(parsed, reply=number)
        case 2:
            changed = replace(parsed, micros=number)
        case 3:
            changed = replace(parsed, payload=flipped(bytes(parsed.payload), rng))
        case 4:
            changed = replace(parsed, scaled=True, payload=_exponents(parsed, rng))
        case _:
            changed = replace(parsed, tokens=0, payload=b"")
    return changed.serialize()


def flipped(payload: bytes, rng: random.Random) -> bytes:
    """Some bits changed."""
    changed = bytearray(payload)
    for _ in range(rng.randint(1, 40)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _exponents(parsed: Frame, rng: random.Random) -> bytes:
    assert parsed.kind is FrameKind.FORWARD
    return rng.randbytes(parsed.tokens) + bytes(parsed.payload)


def _split(message: Message, rng: random.Random) -> bytes:
    """The message as one WebSocket frame, or as several fragments."""
    if rng.random() < 0.9:
        return frame(message.opcode, message.payload)
    cut = rng.randint(0, len(message.payload))
    first = frame(message.opcode, message.payload[:cut], fin=False)
    return first + frame(0, message.payload[cut:])


def _welcome(hello: Hello) -> str:
    return serialize_message(
        Welcome(
            session="s",
            codec=Codec.FP32.label,
            max_positions=hello.max_positions,
            max_chunk_tokens=_MAX_TOKENS,
            max_in_flight=1024,
        )
    )

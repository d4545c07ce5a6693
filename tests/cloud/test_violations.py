"""A device that breaks the protocol gets its typed error; nobody else notices."""

import asyncio
import contextlib
import dataclasses
import json
import random
import struct

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from cloud.text import longest_forward
from lambda_split.errors import (
    FrameLengthMismatch,
    FrameOversized,
    FrameTruncated,
    FrameUnknownCodec,
    FrameUnknownFlags,
    FrameUnknownKind,
    FrameVersion,
    HandshakeTimeout,
    MessageMalformed,
    SequenceBroken,
    UnexpectedMessage,
)
from lambda_split.wire.messages import ErrorMessage, Welcome, parse_message, serialize_message
from tests.cloud.serving import (
    LIMITS,
    WIDTH,
    Device,
    Reference,
    hidden_states,
    run,
    same,
    serving,
)


def frame(
    *, version=1, kind=1, flags=0, codec=1, start=0, tokens=1, reply=1, sequence=0, micros=0,
    length=None, payload=None
):  # fmt: skip
    payload = b"\0" * (tokens * WIDTH * 4) if payload is None else payload
    length = len(payload) if length is None else length
    numbers = (version, kind, flags, codec, start, tokens, reply, sequence, micros, length)
    return struct.pack("<BBBBIIIIII", *numbers) + payload


WELCOME = Welcome(session="x", codec="fp32", max_positions=9, max_chunk_tokens=9)

VIOLATIONS = {
    "empty": (b"", FrameTruncated),
    "truncated-header": (frame()[:27], FrameTruncated),
    "truncated-payload": (frame()[:-1], FrameLengthMismatch),
    "trailing-byte": (frame() + b"\0", FrameLengthMismatch),
    "length-lies": (frame(length=4), FrameLengthMismatch),
    "tokens-lie": (frame(tokens=2, payload=b"\0" * WIDTH * 4), FrameLengthMismatch),
    "oversized-chunk": (
        frame(tokens=LIMITS.max_chunk_tokens + 1, payload=b""),
        FrameOversized,
    ),
    "absurd-chunk": (frame(tokens=0xFFFFFFFF, payload=b"", length=0xFFFFFFFF), FrameOversized),
    "wrong-version": (frame(version=2), FrameVersion),
    "unknown-kind": (frame(kind=3), FrameUnknownKind),
    "kind-of-the-server": (frame(kind=2), FrameUnknownKind),
    "unknown-flags": (frame(flags=2), FrameUnknownFlags),
    "unknown-codec": (frame(codec=9), FrameUnknownCodec),
    "codec-not-agreed": (frame(codec=2, payload=b"\0" * WIDTH * 2), FrameUnknownCodec),
    "lost-frame": (frame(sequence=1), SequenceBroken),
    "random-bytes": (random.Random(3).randbytes(300), FrameVersion),
    "not-json": ("hello", MessageMalformed),
    "half-json": ('{"type": "bye"', MessageMalformed),
    "deep-json": ('{"type": "bye", "x": ' + "[" * 5000, MessageMalformed),
    "unknown-type": ('{"type": "sudo"}', MessageMalformed),
    "long-text": (" " * 20_000, MessageMalformed),
    "text-instead-of-a-frame": (frame().hex(), MessageMalformed),
    "welcome-from-a-device": (serialize_message(WELCOME), UnexpectedMessage),
    "error-from-a-device": (
        serialize_message(ErrorMessage(code="x", message="y")),
        UnexpectedMessage,
    ),
}


async def bystander(device, rounds):
    """Forwards of a session that does nothing wrong, and what they must give."""
    found = []
    for index in range(rounds):
        found.append(await device.forward(2 * index, hidden_states(2, index)))
        await asyncio.sleep(0)
    return found


def assert_unharmed(model, found):
    """Up to rounding: what is valid in others' frames may run in the same steps."""
    reference = Reference(model.trunk)
    for index, hidden in enumerate(found):
        assert same(hidden, reference.forward(2 * index, hidden_states(2, index)))


@pytest.mark.parametrize("case", VIOLATIONS)
def test_a_violation_ends_its_own_session_only(model, case):
    message, expected = VIOLATIONS[case]

    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as other:
            before = await other.forward(0, hidden_states(2, 0))
            async with Device.connected(url, model.hello()) as device:
                await device.socket.send(message)
                ended = await device.fatal()
            after = await other.forward(2, hidden_states(2, 1))
            return ended, [before, after]

    (error, code), found = run(scenario())
    assert type(error) is expected
    assert code == 1002
    assert_unharmed(model, found)


def test_a_reordered_frame_is_noticed(model):
    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as device:
            await device.forward(0, hidden_states(2))
            await device.socket.send(frame(start=2, sequence=2))
            return await device.fatal()

    error, _ = run(scenario())
    assert type(error) is SequenceBroken
    assert (error.found, error.expected) == (2, 1)


def test_a_repeated_frame_is_noticed(model):
    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as device:
            await device.forward(0, hidden_states(2))
            await device.socket.send(frame(sequence=0))
            return await device.fatal()

    assert type(run(scenario())[0]) is SequenceBroken


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (frame(), UnexpectedMessage),
        (serialize_message(WELCOME), UnexpectedMessage),
        ("{}", MessageMalformed),
        ('{"type": "hello"}', MessageMalformed),
    ],
    ids=["binary", "welcome", "no-type", "no-fields"],
)
def test_the_first_message_must_be_a_hello(model, message, expected):
    async def scenario():
        async with serving(model) as url, connect(url, compression=None) as socket:
            device = Device(socket, model.hello())
            await socket.send(message)
            return await device.fatal()

    error, code = run(scenario())
    assert type(error) is expected
    assert code == 1002


def test_a_second_hello_is_not_allowed(model):
    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as device:
            await device.socket.send(device.session.hello())
            return await device.fatal()

    error, code = run(scenario())
    assert type(error) is UnexpectedMessage
    assert (error.what, error.state) == ("hello", "open")
    assert code == 1002


def test_a_device_that_says_nothing_is_sent_away(model):
    limits = dataclasses.replace(LIMITS, handshake_s=3)  # the upgrade must be done in it

    async def scenario():
        async with serving(model, limits=limits) as url, connect(url, compression=None) as socket:
            return await Device(socket, model.hello()).fatal()

    error, code = run(scenario())
    assert type(error) is HandshakeTimeout
    assert error.seconds == 3
    assert code == 1002


def test_a_message_above_the_largest_legal_frame_is_not_read(model):
    limit = longest_forward(WIDTH, LIMITS.max_chunk_tokens)

    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as other:
            before = await other.forward(0, hidden_states(2, 0))
            async with Device.connected(url, model.hello()) as device:
                with contextlib.suppress(ConnectionClosed):  # while it is still being sent
                    await device.socket.send(b"\0" * (limit + 1))
                await device.socket.wait_closed()
                code = device.socket.close_code
            return code, [before, await other.forward(2, hidden_states(2, 1))]

    code, found = run(scenario())
    assert code == 1009
    assert_unharmed(model, found)


def test_text_that_is_not_utf_8_closes_the_connection(model):
    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as device:
            await device.socket.send(b"\xff\xfe", text=True)
            with pytest.raises(ConnectionClosed):
                await device.socket.recv()
            return device.socket.close_code

    assert run(scenario()) == 1007


def test_a_malformed_upgrade_request_does_not_disturb_the_server(model):
    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as other:
            before = await other.forward(0, hidden_states(2, 0))
            port = int(url.rpartition(":")[2])
            for garbage in (b"\x16\x03\x01\x00\xff" * 40, b"GET / HTTP/1.1\r\n\r\n", b""):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(garbage)
                writer.write_eof()
                await reader.read()
                writer.close()
            return [before, await other.forward(2, hidden_states(2, 1))]

    assert_unharmed(model, run(scenario()))


def test_random_frames_only_ever_end_their_own_session(model):
    rng = random.Random(11)

    def mutated():
        data = bytearray(frame())
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(28)] = rng.randrange(256)
        return bytes(data)

    async def attack(url):
        async with Device.connected(url, model.hello()) as device:
            await device.socket.send(mutated())
            try:
                answer = await asyncio.wait_for(device.socket.recv(), 30)
            except ConnectionClosed:
                return None
            return parse_message(answer) if isinstance(answer, str) else answer

    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as other:
            playing = asyncio.ensure_future(bystander(other, 30))
            answers = [await attack(url) for _ in range(60)]
            return answers, await playing

    answers, found = run(scenario())
    assert_unharmed(model, found)
    codes = {answer.code for answer in answers if isinstance(answer, ErrorMessage)}
    assert "internal-error" not in codes
    assert len(codes) > 4
    assert None not in answers


def test_a_violation_says_what_was_wrong_as_json(model):
    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as device:
            await device.socket.send(frame(version=7))
            return json.loads(await device.socket.recv())

    assert run(scenario()) == {
        "type": "error",
        "code": "frame-version",
        "message": "a frame has protocol version 7, expected 1",
        "fields": {"found": 7, "expected": 1},
        "sequence": None,
    }

"""The session machines of both sides, fed with sequences that a fuzzer chooses.

Each input is a script of steps. A machine must answer every step with an event or a typed error,
keep its counts within bounds, and agree with a simple model of what it should hold.
"""

from __future__ import annotations

import collections

from lambda_split.errors import NonFinite, ProtocolError, RequestError, WireError
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.frames import MAX_U32, Codec, Frame, FrameKind, payload_bytes
from lambda_split.wire.messages import Bye, ErrorMessage, Hello, Welcome, serialize_message
from lambda_split.wire.session import DeviceSession, Rejected, ServerSession, State
from tests.fuzz.readings import Reading
from tests.fuzz.telling import tells

__all__ = ["HELLO", "WELCOME", "device_session", "server_session"]

_WIDTH = 2
_MAX_STEPS = 200
HELLO = Hello(
    protocol=1,
    fingerprint="00112233",
    head_layers=1,
    tail_layers=1,
    hidden_size=_WIDTH,
    codecs=("fp16",),
    max_positions=40,
)
WELCOME = Welcome(session="s", codec="fp16", max_positions=40, max_chunk_tokens=8, max_in_flight=4)


def server_session(data: bytes) -> None:
    """The service's side: whatever a device sends, and whatever becomes of its forwards."""
    reading = Reading(data)
    server = ServerSession()
    if reading.below(8):  # else it is still waiting for the hello
        server.receive_text(serialize_message(HELLO))
        server.accept(WELCOME, Codec.FP16, _WIDTH)
    waiting: collections.deque[Frame] = collections.deque()
    length, sequence = 0, 0
    for _ in range(_MAX_STEPS):
        if not reading:
            return
        step = reading.below(8)
        if step < 5:
            message = _forward(reading, sequence) if step < 4 else reading.piece()
            try:
                frame = server.receive_binary(message)
            except RequestError as error:
                assert server.last_sequence == sequence
                tells(server.reject(sequence, error), error, sequence)
                sequence = (sequence + 1) & MAX_U32
            except ProtocolError:
                return  # the connection ends
            else:
                assert frame.sequence == sequence
                assert 1 <= frame.tokens <= WELCOME.max_chunk_tokens
                assert frame.start + frame.tokens <= WELCOME.max_positions
                waiting.append(frame)
                sequence = (sequence + 1) & MAX_U32
        elif step < 7 and waiting:
            frame = waiting.popleft()
            # The trunk itself refuses a gap that an earlier failure left.
            if step == 5 and frame.start <= length:
                reply = server.reply(frame, _rows(frame.reply), reading.number(4))
                assert len(reply) == 28 + len(_rows(frame.reply).payload)
                length = frame.start + frame.tokens
            else:
                error = NonFinite("outgoing")
                tells(server.reject(frame.sequence, error), error, frame.sequence)
        elif step == 7:
            try:
                event = server.receive_text(reading.piece().decode("utf-8", "replace"))
            except ProtocolError:
                return
            if isinstance(event, Bye):
                assert server.state is State.CLOSED
        assert server.length == length <= WELCOME.max_positions


def device_session(data: bytes) -> None:
    """The device's side: whatever a service answers."""
    reading = Reading(data)
    device = DeviceSession(HELLO)
    if reading.below(8):  # else it is still waiting for the welcome
        device.receive_text(serialize_message(WELCOME))
    in_flight: collections.deque[tuple[int, int, int]] = collections.deque()
    sequence = 0
    for _ in range(_MAX_STEPS):
        if not reading:
            return
        step = reading.below(8)
        try:
            if step < 3:
                start, tokens = reading.below(40), reading.below(8) + 1
                reply = reading.below(tokens + 1)
                device.forward(start, tokens, _rows(tokens), reply=reply)
                in_flight.append((sequence, start + tokens - reply, reply))
                sequence += 1
            elif step == 3 and in_flight:
                answered, start, tokens = in_flight[0]
                frame = device.receive_binary(_reply(answered, start, tokens))
                assert (frame.sequence, frame.start, frame.tokens) == (answered, start, tokens)
                in_flight.popleft()
            elif step == 4 and in_flight:
                error = ErrorMessage.from_error(NonFinite("incoming"), in_flight[0][0])
                rejected = device.receive_text(serialize_message(error))
                assert isinstance(rejected, Rejected)
                assert rejected.sequence == in_flight.popleft()[0]
            elif step == 5:
                fields = [reading.number(4) for _ in range(3)]
                device.receive_binary(_reply(*fields, payload=reading.piece()))
                in_flight.popleft()
            elif step == 6:
                device.receive_binary(reading.piece())
                in_flight.popleft()
            else:
                event = device.receive_text(reading.piece().decode("utf-8", "replace"))
                if isinstance(event, Rejected):
                    assert event.sequence == in_flight.popleft()[0]
        except WireError:
            return
        assert device.in_flight == len(in_flight)


def _forward(reading: Reading, sequence: int) -> bytes:
    """A forward that is valid but for what the reading makes of it."""
    tokens = reading.below(10)
    frame = Frame(
        kind=FrameKind.FORWARD,
        codec=Codec.FP16,
        start=reading.number(4) if reading.below(8) == 0 else reading.below(45),
        tokens=tokens,
        sequence=sequence if reading.below(16) else reading.number(4),
        payload=bytes(payload_bytes(Codec.FP16, tokens, _WIDTH, scaled=False)),
        reply=reading.below(10),
    )
    return frame.serialize()


def _reply(sequence: int, start: int, tokens: int, *, payload: bytes | None = None) -> bytes:
    return Frame(
        kind=FrameKind.HIDDEN,
        codec=Codec.FP16,
        start=start,
        tokens=tokens,
        sequence=sequence,
        payload=_rows(tokens).payload if payload is None else payload,
    ).serialize()


def _rows(tokens: int) -> Encoded:
    return Encoded(bytes(payload_bytes(Codec.FP16, tokens, _WIDTH, scaled=False)))

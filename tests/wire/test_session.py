"""The state machines of both sides, without sockets."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_split.errors import (
    CapacityRefused,
    ChunkTooLong,
    FrameUnknownCodec,
    FrameUnknownKind,
    MessageMalformed,
    NonFinite,
    PositionBeyondEnd,
    PositionGap,
    RemoteError,
    SequenceBroken,
    ServerDraining,
    UnexpectedMessage,
)
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.frames import MAX_U32, Codec, Frame, FrameKind
from lambda_split.wire.messages import (
    Bye,
    ErrorMessage,
    Hello,
    Welcome,
    parse_message,
    serialize_message,
)
from lambda_split.wire.session import DeviceSession, Rejected, ServerSession, State

WIDTH = 2
HELLO = Hello(
    protocol=1,
    fingerprint="00112233",
    head_layers=1,
    tail_layers=1,
    hidden_size=WIDTH,
    codecs=("fp32", "fp16"),
    max_positions=20,
)
WELCOME = Welcome(session="s", codec="fp32", max_positions=20, max_chunk_tokens=8, max_in_flight=4)


def chunk(tokens):
    return Encoded(b"\0" * (tokens * WIDTH * 4))


def opened():
    """Both sides after a handshake."""
    device, server = DeviceSession(HELLO), ServerSession()
    assert server.receive_text(device.hello()) == HELLO
    assert device.receive_text(server.accept(WELCOME, Codec.FP32, WIDTH)) == WELCOME
    assert device.state is server.state is State.OPEN
    return device, server


def forward(**changes):
    facts = {
        "kind": FrameKind.FORWARD,
        "codec": Codec.FP32,
        "start": 0,
        "tokens": 1,
        "sequence": 0,
        "payload": chunk(changes.get("tokens", 1)).payload,
        "reply": 1,
    }
    return Frame(**(facts | changes)).serialize()


def test_a_forward_and_its_reply_cross_unchanged():
    device, server = opened()
    received = server.receive_binary(device.forward(0, 3, chunk(3), reply=2))
    assert (received.start, received.tokens, received.reply, received.sequence) == (0, 3, 2, 0)
    assert device.in_flight == 1
    reply = device.receive_binary(server.reply(received, chunk(2), 55))
    assert (reply.kind, reply.start, reply.tokens, reply.micros) == (FrameKind.HIDDEN, 1, 2, 55)
    assert device.in_flight == 0
    assert server.length == 3


def test_a_replay_is_answered_without_positions():
    device, server = opened()
    received = server.receive_binary(device.forward(0, 3, chunk(3), reply=0))
    reply = device.receive_binary(server.reply(received, chunk(0), 5))
    assert (reply.start, reply.tokens, len(reply.payload)) == (3, 0, 0)


# --- the server's side --------------------------------------------------------------------------


@pytest.mark.parametrize("make", [forward, lambda: b"", lambda: b"x" * 100])
def test_a_server_takes_no_frame_before_the_hello(make):
    with pytest.raises(UnexpectedMessage) as caught:
        ServerSession().receive_binary(make())
    assert caught.value.state == "await-hello"


@pytest.mark.parametrize(
    "message", [WELCOME, ErrorMessage(code="x", message="y")], ids=["welcome", "error"]
)
@pytest.mark.parametrize("is_open", [False, True])
def test_a_server_takes_only_what_devices_say(message, is_open):
    server = opened()[1] if is_open else ServerSession()
    with pytest.raises(UnexpectedMessage) as caught:
        server.receive_text(serialize_message(message))
    assert caught.value.what in {"welcome", "error"}
    assert caught.value.state == ("open" if is_open else "await-hello")


def test_a_server_takes_one_hello():
    _, server = opened()
    with pytest.raises(UnexpectedMessage):
        server.receive_text(serialize_message(HELLO))


@pytest.mark.parametrize("is_open", [False, True])
def test_a_device_may_say_bye_at_any_time(is_open):
    server = opened()[1] if is_open else ServerSession()
    assert server.receive_text('{"type":"bye","reason":"r"}') == Bye(reason="r")
    assert server.state is State.CLOSED
    with pytest.raises(UnexpectedMessage):
        server.receive_binary(forward())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"kind": FrameKind.HIDDEN}, FrameUnknownKind),
        ({"codec": Codec.FP16, "payload": bytes(4)}, FrameUnknownCodec),
        ({"sequence": 1}, SequenceBroken),
        ({"sequence": MAX_U32}, SequenceBroken),
    ],
)
def test_a_frame_that_breaks_the_protocol_ends_the_session(changes, error):
    _, server = opened()
    with pytest.raises(error):
        server.receive_binary(forward(**changes))


@pytest.mark.parametrize(
    ("changes", "error", "fields"),
    [
        ({"tokens": 0, "reply": 0}, ChunkTooLong, {"tokens": 0, "limit": 8}),
        ({"tokens": 2, "reply": 3}, ChunkTooLong, {"tokens": 3, "limit": 2}),
        ({"start": 6}, PositionGap, {"start": 6, "length": 5}),
        ({"start": MAX_U32}, PositionGap, {"start": MAX_U32, "length": 5}),
    ],
)
def test_a_forward_that_does_not_fit_is_rejected_and_the_session_goes_on(changes, error, fields):
    device, server = opened()
    server.reply(server.receive_binary(device.forward(0, 5, chunk(5), reply=0)), chunk(0), 0)
    with pytest.raises(error) as caught:
        server.receive_binary(forward(sequence=1, **changes))
    assert caught.value.wire_fields() == fields
    assert server.last_sequence == 1
    message = parse_message(server.reject(1, caught.value))
    assert (message.code, message.sequence) == (error.code, 1)
    assert server.length == 5
    assert server.receive_binary(forward(sequence=2, start=5)).start == 5


def test_a_chunk_may_reach_the_last_position_and_no_further():
    device, server = opened()
    for start in (0, 8):
        accepted = server.receive_binary(device.forward(start, 8, chunk(8), reply=0))
        server.reply(accepted, chunk(0), 0)
    with pytest.raises(PositionBeyondEnd) as caught:
        server.receive_binary(forward(sequence=2, start=16, tokens=5))
    assert caught.value.wire_fields() == {"end": 21, "max_positions": 20}
    server.reject(2, caught.value)
    assert server.receive_binary(forward(sequence=3, start=16, tokens=4)).tokens == 4


def test_a_rejection_with_others_in_flight_leaves_what_they_leave():
    device, server = opened()
    frames = [
        server.receive_binary(device.forward(start, tokens, chunk(tokens), reply=0))
        for start, tokens in ((0, 4), (4, 6), (2, 3))
    ]
    server.reply(frames[0], chunk(0), 0)
    server.reject(1, NonFinite("outgoing"))
    assert server.length == 4
    server.reply(frames[2], chunk(0), 0)
    assert server.length == 5
    with pytest.raises(PositionGap) as caught:
        server.receive_binary(forward(sequence=3, start=6))
    assert caught.value.length == 5


def test_a_gap_that_forwards_in_flight_may_close_is_left_to_the_engine():
    device, server = opened()
    server.receive_binary(device.forward(0, 8, chunk(8), reply=0))
    server.receive_binary(device.forward(2, 1, chunk(1), reply=0))
    # 8 follows the first if the second fails; 9 follows neither.
    assert server.receive_binary(device.forward(8, 1, chunk(1), reply=0)).start == 8
    with pytest.raises(PositionGap):
        server.receive_binary(forward(sequence=3, start=10))


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(1, 8), st.integers(0, 3), st.booleans()),
        max_size=30,
    )
)
def test_whatever_fails_the_length_is_that_of_the_last_success(script):
    """Against a model that runs each forward in its turn, with up to three in flight."""
    device, server = opened()
    waiting, length = [], 0

    def settle(count):
        nonlocal length
        for frame, works in itertools.islice(list(waiting), count):
            waiting.pop(0)
            if works and frame.start <= length:
                server.reply(frame, chunk(0), 0)
                length = frame.start + frame.tokens
            else:
                server.reject(frame.sequence, NonFinite("outgoing"))
            assert server.length == length

    for start, tokens, settled, works in script:
        try:
            frame = server.receive_binary(device.forward(start, tokens, chunk(tokens), reply=0))
        except PositionGap as error:
            # It must be one whatever comes of those in flight.
            ends = [one.start + one.tokens for one, _ in waiting]
            assert start > max([length, *ends])
            server.reject(server.last_sequence, error)
        else:
            waiting.append((frame, works))
        settle(settled if len(waiting) < 3 else len(waiting))


# --- the device's side --------------------------------------------------------------------------


def test_a_device_sends_no_forward_before_the_welcome():
    with pytest.raises(UnexpectedMessage):
        DeviceSession(HELLO).forward(0, 1, chunk(1), reply=1)


@pytest.mark.parametrize(
    "changes",
    [{"codec": "bf16"}, {"codec": "int3"}, {"max_positions": 19}],
    ids=["not-offered", "unknown", "fewer-positions"],
)
def test_a_welcome_that_breaks_the_handshake_is_malformed(changes):
    device = DeviceSession(HELLO)
    welcome = {"session": "s", "codec": "fp32", "max_positions": 20, "max_chunk_tokens": 8}
    with pytest.raises(MessageMalformed):
        device.receive_text(serialize_message(Welcome(**(welcome | changes))))


def test_a_device_takes_one_welcome_and_no_hello():
    device, _ = opened()
    for message in (WELCOME, HELLO):
        with pytest.raises(UnexpectedMessage):
            device.receive_text(serialize_message(message))


def test_a_device_takes_no_frame_that_it_did_not_ask_for():
    device, _ = opened()
    with pytest.raises(UnexpectedMessage):
        device.receive_binary(forward(kind=FrameKind.HIDDEN))
    with pytest.raises(UnexpectedMessage):
        DeviceSession(HELLO).receive_binary(forward(kind=FrameKind.HIDDEN))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"kind": FrameKind.FORWARD}, FrameUnknownKind),
        ({"codec": Codec.FP16, "payload": bytes(4)}, FrameUnknownCodec),
        ({"sequence": 1}, SequenceBroken),
        ({"start": 1}, UnexpectedMessage),
        ({"tokens": 0, "payload": b""}, UnexpectedMessage),
    ],
)
def test_a_reply_must_be_the_one_expected(changes, error):
    device, _ = opened()
    device.forward(2, 1, chunk(1), reply=1)
    reply = {"kind": FrameKind.HIDDEN, "start": 2, "reply": 0} | changes
    with pytest.raises(error):
        device.receive_binary(forward(**reply))


def test_a_rejected_forward_is_reported_in_its_turn():
    device, _ = opened()
    device.forward(0, 1, chunk(1), reply=1)
    device.forward(1, 1, chunk(1), reply=1)
    answer = ErrorMessage.from_error(NonFinite("incoming"), 0)
    rejected = device.receive_text(serialize_message(answer))
    assert isinstance(rejected, Rejected)
    assert rejected.sequence == 0
    assert isinstance(rejected.error, NonFinite)
    assert device.in_flight == 1
    with pytest.raises(SequenceBroken):
        device.receive_text(serialize_message(answer))


def test_a_rejection_without_a_forward_breaks_the_sequence():
    device, _ = opened()
    with pytest.raises(SequenceBroken):
        device.receive_text(serialize_message(ErrorMessage.from_error(NonFinite("incoming"), 0)))


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (ErrorMessage.from_error(ServerDraining()), ServerDraining),
        (ErrorMessage.from_error(CapacityRefused("full", 3)), CapacityRefused),
        (ErrorMessage.from_error(NonFinite("incoming")), NonFinite),
        (ErrorMessage(code="from-the-future", message="?", sequence=0), RemoteError),
        (ErrorMessage(code="position-gap", message="?", fields={"start": "9"}), RemoteError),
    ],
)
def test_an_error_that_answers_no_forward_ends_the_session(message, error):
    device, _ = opened()
    device.forward(0, 1, chunk(1), reply=1)
    with pytest.raises(error):
        device.receive_text(serialize_message(message))
    assert device.state is State.CLOSED


def test_either_side_may_say_bye():
    device, server = opened()
    assert device.receive_text('{"type":"bye","reason":"x"}') == Bye(reason="x")
    assert device.state is State.CLOSED
    device, server = opened()
    assert server.receive_text(device.close("done")) == Bye(reason="done")
    assert device.state is server.state is State.CLOSED


def test_sequence_numbers_start_again_after_the_last():
    device, server = opened()
    device._in_flight._next = server._next_sequence = MAX_U32
    for expected in (MAX_U32, 0):
        received = server.receive_binary(device.forward(0, 1, chunk(1), reply=1))
        assert received.sequence == expected
        assert device.receive_binary(server.reply(received, chunk(1), 0)).sequence == expected

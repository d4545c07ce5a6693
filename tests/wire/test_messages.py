"""Control messages: literal texts, bounds, round trips."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_split.errors import InternalError, MessageMalformed, PositionGap, RemoteError
from lambda_split.wire.messages import (
    MAX_MESSAGE_BYTES,
    Bye,
    ErrorMessage,
    Hello,
    PictureHello,
    Welcome,
    message_type,
    parse_message,
    serialize_message,
)

HELLO = Hello(
    protocol=1,
    fingerprint="00112233",
    head_layers=1,
    tail_layers=2,
    hidden_size=64,
    codecs=("fp16", "fp32"),
    max_positions=128,
    witnesses={"w": "aabbccdd"},
    agent="a/1",
    replay_positions=7,
)
PICTURE_HELLO = PictureHello(
    protocol=1,
    fingerprint="00112233",
    split="whole",
    formats=("nf4-channel-delta", "fp32"),
    latents=16384,
    context=154,
    steps=50,
    witnesses={"w": "aabbccdd"},
    agent="a/1",
    resumed_step=7,
)
WELCOME = Welcome(
    session="s", codec="fp16", max_positions=128, max_chunk_tokens=512, max_in_flight=8, agent="b/2"
)
LITERALS = {
    "hello": (
        HELLO,
        (
            '{"type":"hello","protocol":1,"fingerprint":"00112233","head_layers":1,"tail_layers":2,'
            '"hidden_size":64,"codecs":["fp16","fp32"],"max_positions":128,'
            '"witnesses":{"w":"aabbccdd"},"agent":"a/1","replay_positions":7}'
        ),
    ),
    "picture-hello": (
        PICTURE_HELLO,
        (
            '{"type":"picture-hello","protocol":1,"fingerprint":"00112233","split":"whole",'
            '"formats":["nf4-channel-delta","fp32"],"latents":16384,"context":154,"steps":50,'
            '"witnesses":{"w":"aabbccdd"},"agent":"a/1","resumed_step":7}'
        ),
    ),
    "welcome": (
        WELCOME,
        (
            '{"type":"welcome","session":"s","codec":"fp16","max_positions":128,'
            '"max_chunk_tokens":512,"max_in_flight":8,"agent":"b/2"}'
        ),
    ),
    "error": (
        ErrorMessage.from_error(PositionGap(9, 7), 3),
        (
            '{"type":"error","code":"position-gap",'
            '"message":"a chunk starts at position 9, the trunk holds 7",'
            '"fields":{"start":9,"length":7},"sequence":3}'
        ),
    ),
    "bye": (Bye(reason="done"), '{"type":"bye","reason":"done"}'),
}


@pytest.mark.parametrize("name", LITERALS)
def test_a_message_is_this_text(name):
    message, text = LITERALS[name]
    assert serialize_message(message) == text
    assert message_type(message) == name


@pytest.mark.parametrize("name", LITERALS)
def test_this_text_is_the_message(name):
    message, text = LITERALS[name]
    assert parse_message(text) == message
    assert parse_message(text.encode()) == message


def test_the_limit_counts_bytes_not_characters():
    text = serialize_message(Bye(reason="\u20ac"))  # 3 bytes in UTF-8
    padding = MAX_MESSAGE_BYTES - len(text.encode())
    assert parse_message(text + " " * padding) == Bye(reason="\u20ac")
    with pytest.raises(MessageMalformed):
        parse_message(text + " " * (padding + 1))


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe", b'{"type":"bye","reason":"\xc3"}', '{"type":"bye","reason":"\ud800"}'],
    ids=["not-utf-8", "cut-utf-8", "lone-surrogate"],
)
def test_text_that_is_not_unicode_is_malformed(data):
    with pytest.raises(MessageMalformed):
        parse_message(data)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting_is_malformed_not_a_crash(opening):
    with pytest.raises(MessageMalformed):
        parse_message('{"type":"bye","x":' + opening * (16000 // len(opening)))


def test_a_hostile_text_is_not_repeated_at_length():
    with pytest.raises(MessageMalformed) as caught:
        parse_message('{"type":"' + "x" * 16000 + '"}')
    assert len(str(caught.value)) < 300


HOSTILE = "a\x1b[2J\r\nlambda-split: all is well\u202e\x9b\x00"


@pytest.mark.parametrize(
    "message",
    [
        ErrorMessage(code="internal-error", message="", fields={"incident": HOSTILE}),
        ErrorMessage(code="internal-error", message=HOSTILE, fields={}),
        ErrorMessage(code="unheard-of" + HOSTILE, message="", fields={HOSTILE: 1}),
    ],
    ids=["field", "message", "code"],
)
def test_what_a_peer_reports_cannot_steer_the_terminal(message):
    error = parse_message(serialize_message(message)).to_error()
    assert isinstance(error, InternalError | RemoteError)
    assert str(error).isprintable()
    assert "[2J\ufffd\ufffdlambda-split: all is well" in str(error)


def test_words_in_any_script_stay_as_they_are():
    error = ErrorMessage(code="new", message="zu groß, 太大 — 😀").to_error()
    assert str(error) == "the peer reports new: zu groß, 太大 — 😀"


@pytest.mark.parametrize("field", ["fingerprint", "witness"])
@pytest.mark.parametrize("name", ["hello", "picture-hello"])
def test_a_digest_does_not_end_with_a_line_feed(name, field):
    text = LITERALS[name][1]
    digest = "00112233" if field == "fingerprint" else "aabbccdd"
    with pytest.raises(MessageMalformed):
        parse_message(text.replace(digest, digest + r"\n"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("split", "half"),
        ("split", None),
        ("formats", ["fp32"] * 65),
        ("formats", ["x" * 33]),
        ("formats", "fp32"),
        ("latents", -1),
        ("latents", 2**32),
        ("context", 2**32),
        ("steps", 1.5),
        ("steps", True),
        ("resumed_step", -1),
        ("agent", "x" * 257),
        ("fingerprint", "XX"),
    ],
)
def test_fields_of_a_picture_hello_have_bounds(field, value):
    facts = msgspec.json.decode(LITERALS["picture-hello"][1])
    assert parse_message(msgspec.json.encode(facts)) == PICTURE_HELLO
    with pytest.raises(MessageMalformed):
        parse_message(msgspec.json.encode(facts | {field: value}))


@pytest.mark.parametrize("field", ["split", "formats", "latents", "context", "steps"])
def test_a_picture_hello_says_what_it_needs(field):
    facts = msgspec.json.decode(LITERALS["picture-hello"][1])
    del facts[field]
    with pytest.raises(MessageMalformed):
        parse_message(msgspec.json.encode(facts))


U32 = st.integers(0, 2**32 - 1)
SHORT = st.text(st.characters(exclude_categories=["Cs"]), max_size=256)
DIGEST = st.text("0123456789abcdef", min_size=8, max_size=64)
MESSAGES = st.one_of(
    st.builds(
        Hello,
        protocol=U32,
        fingerprint=DIGEST,
        head_layers=U32,
        tail_layers=U32,
        hidden_size=U32,
        codecs=st.lists(st.text("fp1632", max_size=32), max_size=16).map(tuple),
        max_positions=U32,
        witnesses=st.dictionaries(st.text("ab.", max_size=30), DIGEST, max_size=8),
        agent=SHORT,
    ),
    st.builds(
        PictureHello,
        protocol=U32,
        fingerprint=DIGEST,
        split=st.sampled_from(["whole", "deep"]),
        formats=st.lists(st.text("nf4-delta", max_size=32), max_size=64).map(tuple),
        latents=U32,
        context=U32,
        steps=U32,
        agent=SHORT,
        resumed_step=U32,
    ),
    st.builds(
        Welcome,
        session=SHORT,
        codec=SHORT,
        max_positions=U32,
        max_chunk_tokens=st.integers(1, 1 << 20),
        max_in_flight=st.integers(1, 1024),
        agent=SHORT,
    ),
    st.builds(
        ErrorMessage,
        code=SHORT,
        message=SHORT,
        fields=st.dictionaries(SHORT, st.integers(0, 2**53 - 1) | SHORT, max_size=4),
        sequence=st.none() | U32,
    ),
    st.builds(Bye, reason=SHORT),
)


@given(MESSAGES)
def test_parsing_undoes_serializing(message):
    assert parse_message(serialize_message(message)) == message


@given(
    st.text(max_size=60)
    | st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["type", "x"]), inner),
        max_leaves=10,
    ).map(msgspec.json.encode)
)
def test_any_text_is_a_message_or_malformed(text):
    try:
        message = parse_message(text)
    except MessageMalformed:
        return
    assert parse_message(serialize_message(message)) == message

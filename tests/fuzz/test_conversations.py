"""What is changed was valid: otherwise nothing behind the first message would be tried."""

import random

import msgspec
import pytest

from lambda_split.wire.frames import Codec
from lambda_split.wire.messages import Bye, Hello, PictureHello, Welcome, serialize_message
from lambda_split.wire.pictures.handshake import PictureOffer, accept_picture_hello
from lambda_split.wire.pictures.layout import DenoiserGeometry
from lambda_split.wire.pictures.server_session import PictureServerSession
from lambda_split.wire.session import ServerSession
from tests.faults.raw import TEXT
from tests.fuzz.conversations import text_speech
from tests.fuzz.picture_conversations import picture_speech
from tests.fuzz.sessions import HELLO

TEXT_HELLO = msgspec.structs.replace(HELLO, codecs=("fp32",), max_positions=256)
GEOMETRY = DenoiserGeometry(channels=4, context_width=8)
PICTURE_HELLO = PictureHello(
    protocol=1,
    fingerprint="00112233",
    split="whole",
    formats=("fp32",),
    latents=128,
    context=64,
    steps=8,
)


def welcome_of(codec, positions):
    return Welcome(
        session="s", codec=codec, max_positions=positions, max_chunk_tokens=64, max_in_flight=64
    )


def open_text(server, hello):
    assert isinstance(hello, Hello)
    server.accept(welcome_of("fp32", hello.max_positions), Codec.FP32, hello.hidden_size)


def open_pictures(server, hello):
    accepted = accept_picture_hello(hello, PictureOffer("00112233", GEOMETRY, max_latents=128))
    server.accept(welcome_of(accepted.format.label, hello.steps), accepted)


KINDS = {
    "text": (lambda: text_speech(serialize_message(TEXT_HELLO), 2), ServerSession, open_text),
    "pictures": (
        lambda: picture_speech(PICTURE_HELLO, GEOMETRY),
        lambda: PictureServerSession(GEOMETRY),
        open_pictures,
    ),
}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", KINDS)
def test_all_that_is_said_is_taken(kind, seed):
    make, serve, accept = KINDS[kind]
    speech, server = make(), serve()
    first, *said, last = speech.conversation(random.Random(seed))
    accept(server, server.receive_text(first.payload.decode()))
    for message in said:
        server.receive_binary(message.payload)
    assert last.opcode == TEXT
    assert isinstance(server.receive_text(last.payload.decode()), Bye)


@pytest.mark.parametrize("kind", KINDS)
def test_gentle_changes_leave_frames(kind):
    make, _, _ = KINDS[kind]
    speech, rng = make(), random.Random(3)
    for _ in range(20):
        for message in speech.conversation(rng):
            if message.opcode != TEXT:
                assert len(speech.gently(message.payload, rng)) >= 28

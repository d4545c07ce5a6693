"""The golden vectors hold for this implementation (``cloud`` tests the torch codecs)."""

import json

import numpy as np
import pytest

from lambda_split.errors import ProtocolError, WireError
from lambda_split.wire import codecs
from lambda_split.wire.frames import Codec, parse_frame
from lambda_split.wire.messages import parse_message, serialize_message
from tests.vectors.reading import named, read_vectors, written_again

FRAMES = read_vectors("frames.json")
CODECS = read_vectors("codecs.json")
LIMITS = {"width": FRAMES["width"], "max_tokens": FRAMES["max_tokens"]}


def test_the_committed_files_are_what_the_script_writes(tmp_path):
    names = ("frames.json", "codecs.json")
    written, committed = written_again("make_vectors.py", names, tmp_path)
    assert written == committed


@pytest.mark.parametrize("vector", **named(FRAMES["frames"]))
def test_a_frame_s_bytes_mean_its_fields_and_back(vector):
    data = bytes.fromhex(vector["hex"])
    frame = parse_frame(data, **LIMITS)
    found = {
        "kind": frame.kind.name.lower(),
        "codec": frame.codec.label,
        "scaled": frame.scaled,
        "start": frame.start,
        "tokens": frame.tokens,
        "reply": frame.reply,
        "sequence": frame.sequence,
        "micros": frame.micros,
        "payload": bytes(frame.payload).hex(),
    }
    assert found == vector["frame"]
    assert frame.serialize() == data


@pytest.mark.parametrize("vector", **named(FRAMES["frames_rejected"]))
def test_a_malformed_frame_is_rejected_with_its_error(vector):
    with pytest.raises(ProtocolError) as caught:
        parse_frame(bytes.fromhex(vector["hex"]), **LIMITS)
    assert caught.value.code == vector["error"]
    assert caught.value.wire_fields() == vector["fields"]


@pytest.mark.parametrize("vector", **named(FRAMES["messages"]))
def test_a_message_s_text_means_its_fields_and_back(vector):
    message = parse_message(vector["text"])
    assert json.loads(serialize_message(message)) == vector["message"]
    assert parse_message(serialize_message(message)) == message


@pytest.mark.parametrize("vector", **named(FRAMES["messages_rejected"]))
def test_a_malformed_message_is_rejected(vector):
    with pytest.raises(ProtocolError) as caught:
        parse_message(vector["text"])
    assert caught.value.code == vector["error"]


def shaped(vector, values):
    floats = np.frombuffer(bytes.fromhex(values), "<f4").astype(np.float32)
    return floats.reshape(vector["tokens"], vector["width"])


def decoded(vector):
    return codecs.decode(
        bytes.fromhex(vector["payload"]),
        Codec.from_label(vector["codec"]),
        vector["tokens"],
        vector["width"],
        scaled=vector["scaled"],
    )


@pytest.mark.parametrize("vector", **named(CODECS["encode"]))
def test_values_become_the_payload(vector):
    hidden = shaped(vector, vector["values"])
    encoded = codecs.encode(hidden, Codec.from_label(vector["codec"]))
    assert encoded.payload.hex() == vector["payload"]
    assert encoded.scaled == vector["scaled"]


@pytest.mark.parametrize("vector", **named(CODECS["encode"] + CODECS["decode"]))
def test_the_payload_becomes_values(vector):
    # Bytes, not values: -0.0 and subnormals count.
    assert decoded(vector).tobytes().hex() == vector["decoded"]


@pytest.mark.parametrize("vector", **named(CODECS["encode_rejected"]))
def test_values_that_no_payload_can_hold_are_rejected(vector):
    with pytest.raises(WireError) as caught:
        codecs.encode(shaped(vector, vector["values"]), Codec.from_label(vector["codec"]))
    assert caught.value.code == vector["error"]


@pytest.mark.parametrize("vector", **named(CODECS["decode_rejected"]))
def test_payloads_without_meaning_are_rejected(vector):
    with pytest.raises(WireError) as caught:
        decoded(vector)
    assert caught.value.code == vector["error"]

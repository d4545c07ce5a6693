"""Inputs that are kept: the golden vectors, and what once found a fault."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Iterator

import numpy as np

from lambda_split.wire.frames import Codec
from lambda_split.wire.messages import serialize_message
from lambda_split.wire.tensor_codecs import encode
from lambda_split.wire.tensor_format import TENSOR_FORMATS
from tests.fuzz.picture_targets import REFERENCES
from tests.fuzz.sessions import HELLO, WELCOME
from tests.vectors.reading import read_vectors

__all__ = ["found", "seeds"]

_FOLDER = pathlib.Path(__file__).parent / "corpus"


def found(target: str) -> dict[str, bytes]:
    """Inputs on which a target once failed, by file name."""
    folder = _FOLDER / target
    if not folder.is_dir():
        return {}
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def seeds(target: str) -> list[bytes]:
    """Inputs to begin from."""
    return list(_SEEDS[target]())


def _frames() -> Iterator[bytes]:
    vectors = read_vectors("frames.json")
    for entry in vectors["frames"] + vectors["frames_rejected"]:
        yield bytes.fromhex(entry["hex"])


def _messages() -> Iterator[bytes]:
    vectors = read_vectors("frames.json")
    for entry in vectors["messages"] + vectors["messages_rejected"]:
        if "text" in entry:
            yield entry["text"].encode("utf-8", "surrogatepass")


def _codecs() -> Iterator[bytes]:
    vectors = read_vectors("codecs.json")
    order = [codec.label for codec in Codec]
    for kind in ("encode", "decode", "decode_rejected"):
        for entry in vectors[kind]:
            facts = (order.index(entry["codec"]), entry["tokens"], entry["width"] - 1)
            if "payload" in entry and max(facts) < 256:
                head = bytes((*facts, int(entry.get("scaled", False))))
                yield head + bytes.fromhex(entry["payload"])


def _sessions() -> Iterator[bytes]:
    """Scripts of valid steps, and texts that either side may get."""
    rng = random.Random(0)
    for _ in range(20):
        yield b"\1" + b"".join(
            bytes((rng.choice((0, 0, 5)), rng.randint(1, 8), 1, 0, 1, rng.randint(0, 2)))
            for _ in range(10)
        )
    texts = [serialize_message(HELLO), serialize_message(WELCOME), '{"type":"bye"}']
    for text in [text.encode() for text in texts] + list(_messages()):
        if len(text) < 1 << 16:
            for first in (b"\0", b"\1"):
                yield first + b"\7" + len(text).to_bytes(2, "little") + text
    for frame in _frames():
        yield b"\1\4" + len(frame).to_bytes(2, "little") + frame
        yield b"\1\0\0\0\6" + len(frame).to_bytes(2, "little") + frame


def _tensor_codecs() -> Iterator[bytes]:
    vectors = read_vectors("tensor_codecs.json")
    labels = [form.label for form in TENSOR_FORMATS]
    for kind in ("encode", "decode", "decode_rejected"):
        for entry in vectors[kind]:
            shape = [*entry["shape"], 1, 1][:4]  # dimensions that are not there are 1
            reference = "none" if entry["reference"] is None else "normal"
            if max(shape) < 5:
                facts = (labels.index(entry["codec"]), *shape, REFERENCES.index(reference))
                yield bytes((*facts, 0)) + bytes.fromhex(entry["payload"])
    values = np.random.default_rng(0).standard_normal((1, 2, 16, 17), np.float32)
    for number, form in enumerate(TENSOR_FORMATS):
        for reference in range(len(REFERENCES)):
            yield bytes((number, *values.shape, reference, 1)) + encode(values, form)


def _picture_frames() -> Iterator[bytes]:
    vectors = read_vectors("picture_frames.json")
    for entry in vectors["frames"] + vectors["frames_rejected"]:
        yield bytes.fromhex(entry["hex"])


def _picture_sessions() -> Iterator[bytes]:
    """Scripts of valid steps, and what either side may get."""
    rng = random.Random(0)
    for number in range(40):
        opened = bytes((number % 2, rng.randrange(256), 1))
        yield opened + b"".join(_picture_steps(rng) for _ in range(3))
    for text in [b'{"type":"bye"}', *_messages()]:
        if len(text) < 1 << 16:
            for first in (b"\0", b"\1"):
                yield b"\0\0" + first + b"\7" + len(text).to_bytes(2, "little") + text
    for frame in _picture_frames():
        for step in (b"\3", b"\4"):
            yield b"\0\0\1" + step + len(frame).to_bytes(2, "little") + frame


def _picture_steps(rng: random.Random) -> bytes:
    """A picture, some steps, and answers, of a server's script; a device makes its own of it."""
    begin = bytes((2, 1, rng.randrange(4), 0, 2, 2, 1, rng.randrange(3), rng.randrange(3)))
    steps = [bytes((0, 1, 0, step, 1)) for step in range(3)]
    answers = [bytes((rng.choice((5, 6)), *rng.randbytes(4))) for _ in range(rng.randrange(4))]
    return begin + b"".join(steps + answers)


_SEEDS = {
    "frames": _frames,
    "messages": _messages,
    "codecs": _codecs,
    "handshake": _messages,
    "server-session": _sessions,
    "device-session": _sessions,
    "tensor-codecs": _tensor_codecs,
    "picture-frames": _picture_frames,
    "picture-server-session": _picture_sessions,
    "picture-device-session": _picture_sessions,
}

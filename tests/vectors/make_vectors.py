"""Writes the golden vectors ``frames.json`` and ``codecs.json`` beside this file.

Uses nothing of the package: bytes are laid out with ``struct`` alone, whose half-precision format
rounds to nearest even as the protocol wants. Every implementation reads the same files, whatever
its language. Run it with ``python tests/vectors/make_vectors.py``; a test checks that the
committed files are what it writes.
"""

import json
import math
import pathlib
import struct

FOLDER = pathlib.Path(__file__).parent
WIDTH, MAX_TOKENS = 4, 8
KINDS = {"forward": 1, "hidden": 2}
CODECS = {"fp32": 1, "fp16": 2, "bf16": 3}


# --- codecs -------------------------------------------------------------------------------------


def as_float32(value):
    """The float32 nearest to a number, or with exactly the given bits."""
    if isinstance(value, str):
        return struct.unpack("<f", struct.pack("<I", int(value, 16)))[0]
    return struct.unpack("<f", struct.pack("<f", value))[0]


def bf16_bits(value):
    """Round to nearest even by comparing with both neighbors; 0x7f80 is infinity."""
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    below, rest = bits >> 16, bits & 0xFFFF
    up = rest > 0x8000 or (rest == 0x8000 and below % 2 == 1)
    return below + up


def encode(rows, codec):
    """(payload, scaled) of rows of float32 values."""
    values = [value for row in rows for value in row]
    if codec == "fp32":
        return struct.pack(f"<{len(values)}f", *values), False
    if codec == "bf16":
        return struct.pack(f"<{len(values)}H", *map(bf16_bits, values)), False
    exponents = []
    for row in rows:
        largest = max((abs(value) for value in row), default=0.0)
        exponents.append(math.frexp(largest)[1] - 15 if largest > 65504 else 0)
    stored = [
        math.ldexp(value, -exponent)
        for row, exponent in zip(rows, exponents, strict=True)
        for value in row
    ]
    scaled = any(exponents)
    prefix = struct.pack(f"<{len(exponents)}b", *exponents) if scaled else b""
    return prefix + struct.pack(f"<{len(stored)}e", *stored), scaled


def decode(payload, codec, tokens, width, *, scaled):
    """The float32 bytes that a payload stands for."""
    count = tokens * width
    exponents = struct.unpack_from(f"<{tokens}b", payload) if scaled else (0,) * tokens
    body = payload[tokens if scaled else 0 :]
    if codec == "bf16":
        stored = [as_float32(f"{bits << 16:08x}") for bits in struct.unpack(f"<{count}H", body)]
    else:
        stored = struct.unpack(f"<{count}{'f' if codec == 'fp32' else 'e'}", body)
    values = [math.ldexp(value, exponents[i // width]) for i, value in enumerate(stored)]
    return struct.pack(f"<{count}f", *values)


ORDINARY = [[0.0, 1.0, -1.0, 0.5], [3.140625, -2.71828, 1e-3, 1234.5]]
SMALL = [["00000001", "80000001", "007fffff", "00800000"], [1e-8, 6e-8, 5.96e-8, -0.0]]
TIES_FP16 = [[1 + 2**-11, 1 + 3 * 2**-11, 2049.0, 2051.0], [1 + 2**-11 + 2**-20, 0.1, -0.1, 65504]]
TIES_BF16 = [["3f808000", "3f818000", "3f808001", "3f807fff"], ["bf808000", "bf818000", 0.1, -0.1]]
LARGE_FP16 = [[65504.0, 1.0, -65504.0, 2.0], [65505.0, 1.0, -0.5, 1e-6], [-1e9, 3.0, 70000.0, 0.0]]
EDGE_FP16 = [[65519.996, 65520.0, -65520.0, 1.0], [2.0**16, 2.0**17 - 1, 0.0, -1.0]]
HUGE_FP16 = [["7f7fefff", 1.0, -1e30, 0.0]]
HUGE_BF16 = [["7f7f7fff", "ff7f0000", 1.0, 65536.0]]

ENCODED = {
    "ordinary values": (ORDINARY, ("fp32", "fp16", "bf16")),
    "subnormal values, rounding to zero, negative zero": (SMALL, ("fp32", "fp16", "bf16")),
    "ties between two fp16 values go to the even one": (TIES_FP16, ("fp16",)),
    "ties between two bf16 values go to the even one": (TIES_BF16, ("bf16",)),
    "rows beyond 65504 are scaled, others keep exponent 0": (LARGE_FP16, ("fp32", "fp16", "bf16")),
    "just beyond 65504: scaled, not rounded": (EDGE_FP16, ("fp16",)),
    "the largest values that scaled fp16 holds": (HUGE_FP16, ("fp16",)),
    "the largest values that bf16 holds": (HUGE_BF16, ("bf16",)),
    "one value": ([[-7.25]], ("fp32", "fp16", "bf16")),
    "no positions": ([], ("fp32", "fp16", "bf16")),
}
NOT_ENCODED = {
    "not a number": (["7fc00000", 0.0], ("fp32", "fp16", "bf16"), "non-finite"),
    "infinity": ([0.0, "ff800000"], ("fp32", "fp16", "bf16"), "non-finite"),
    "finite, but it would round to infinity in bf16": (
        ["7f7f8000", 0.0],
        ("bf16",),
        "codec-overflow",
    ),
    "finite, but it would be read back as infinity from scaled fp16": (
        ["7f7ff000", 0.0],
        ("fp16",),
        "codec-overflow",
    ),
}
# codec, tokens, width, scaled, payload
DECODED = {
    "negative exponents": ("fp16", 2, 1, True, "fffe003c0044"),
    "the smallest exponent: a subnormal float32": ("fp16", 1, 2, True, "80003c0180"),
    "the largest exponent": ("fp16", 1, 2, True, "7fff3b00b8"),
    "exponents before bf16 and fp32 values": ("bf16", 1, 2, True, "04803f40c0"),
    "an exponent before an fp32 value": ("fp32", 1, 1, True, "fe0000803f"),
}
NOT_DECODED = {
    "fp16 infinity": ("fp16", 1, 2, False, "007c003c", "non-finite"),
    "bf16 not a number": ("bf16", 1, 1, False, "c07f", "non-finite"),
    "fp32 infinity": ("fp32", 1, 1, False, "000080ff", "non-finite"),
    "finite, but infinite by its exponent": ("fp16", 1, 1, True, "7f0040", "non-finite"),
    "too short": ("fp16", 1, 2, False, "003c00", "frame-length-mismatch"),
    "too long": ("fp32", 1, 1, False, "0000803f00", "frame-length-mismatch"),
    "exponents missing": ("fp16", 2, 1, True, "003c003c", "frame-length-mismatch"),
}


def codec_vectors():
    encoded = []
    for name, (rows, codecs) in ENCODED.items():
        floats = [[as_float32(value) for value in row] for row in rows]
        for codec in codecs:
            payload, scaled = encode(floats, codec)
            width = len(rows[0]) if rows else WIDTH
            encoded.append(
                {
                    "name": name,
                    "codec": codec,
                    "tokens": len(rows),
                    "width": width,
                    "values": b"".join(struct.pack("<f", v) for r in floats for v in r).hex(),
                    "payload": payload.hex(),
                    "scaled": scaled,
                    "decoded": decode(payload, codec, len(rows), width, scaled=scaled).hex(),
                }
            )
    not_encoded = [
        {
            "name": name,
            "codec": codec,
            "tokens": 1,
            "width": len(row),
            # Packed from bits, not from a float: that would not keep every NaN.
            "values": b"".join(
                struct.pack("<I", int(v, 16)) if isinstance(v, str) else struct.pack("<f", v)
                for v in row
            ).hex(),
            "error": error,
        }
        for name, (row, codecs, error) in NOT_ENCODED.items()
        for codec in codecs
    ]
    keys = ("codec", "tokens", "width", "scaled", "payload")
    decoded = []
    for name, facts in DECODED.items():
        codec, tokens, width, scaled, payload = facts
        hidden = decode(bytes.fromhex(payload), codec, tokens, width, scaled=scaled)
        decoded.append(
            {"name": name, **dict(zip(keys, facts, strict=True)), "decoded": hidden.hex()}
        )
    not_decoded = [
        {"name": name, **dict(zip(keys, facts, strict=True)), "error": error}
        for name, (*facts, error) in NOT_DECODED.items()
    ]
    return {
        "about": "values and decoded: float32 little-endian, row-major; payload as on the wire",
        "encode": encoded,
        "encode_rejected": not_encoded,
        "decode": decoded,
        "decode_rejected": not_decoded,
    }


# --- frames -------------------------------------------------------------------------------------


def header(
    *,
    version=1,
    kind=1,
    flags=0,
    codec=1,
    start=0,
    tokens=1,
    reply=0,
    sequence=0,
    micros=0,
    length=16,
):
    numbers = (version, kind, flags, codec, start, tokens, reply, sequence, micros, length)
    return struct.pack("<BBBBIIIIII", *numbers)


def frame(name, *, kind, codec, payload, scaled=False, **numbers):
    facts = {"start": 0, "tokens": 1, "reply": 0, "sequence": 0, "micros": 0} | numbers
    data = header(
        kind=KINDS[kind], codec=CODECS[codec], flags=int(scaled), length=len(payload), **facts
    )
    return {
        "name": name,
        "hex": (data + payload).hex(),
        "frame": {
            "kind": kind,
            "codec": codec,
            "scaled": scaled,
            **facts,
            "payload": payload.hex(),
        },
    }


ROW_FP32 = struct.pack("<4f", 1.0, -2.0, 0.5, 0.0)
ROW_FP16 = struct.pack("<4e", 1.0, -2.0, 0.5, 0.0)
ROW_BF16 = bytes.fromhex("803f00c0003f0000")
MAX = 0xFFFFFFFF

FRAMES = [
    frame(
        "forward, one position, its output wanted",
        kind="forward",
        codec="fp16",
        payload=ROW_FP16,
        start=7,
        reply=1,
        sequence=3,
    ),
    frame(
        "forward, three positions from 0, the last one wanted",
        kind="forward",
        codec="fp32",
        payload=ROW_FP32 * 3,
        tokens=3,
        reply=1,
    ),
    frame(
        "forward, a replay: nothing wanted",
        kind="forward",
        codec="bf16",
        payload=ROW_BF16 * 2,
        start=256,
        tokens=2,
        sequence=1,
    ),
    frame(
        "forward, scaled fp16: exponents 0 and 2 first",
        kind="forward",
        codec="fp16",
        scaled=True,
        payload=b"\x00\x02" + ROW_FP16 * 2,
        start=1,
        tokens=2,
        reply=2,
        sequence=4,
    ),
    frame(
        "forward, the most positions of a frame",
        kind="forward",
        codec="fp16",
        payload=ROW_FP16 * MAX_TOKENS,
        tokens=MAX_TOKENS,
        reply=MAX_TOKENS,
        sequence=5,
    ),
    frame(
        "forward, the largest numbers",
        kind="forward",
        codec="fp16",
        payload=ROW_FP16,
        start=MAX,
        reply=MAX,
        sequence=MAX,
        micros=MAX,
    ),
    frame(
        "forward without positions: well formed, rejected as a request",
        kind="forward",
        codec="fp32",
        payload=b"",
        tokens=0,
    ),
    frame(
        "hidden, one position",
        kind="hidden",
        codec="fp16",
        payload=ROW_FP16,
        start=7,
        sequence=3,
        micros=1234,
    ),
    frame(
        "hidden, the answer to a replay: no positions",
        kind="hidden",
        codec="bf16",
        payload=b"",
        start=258,
        tokens=0,
        sequence=1,
        micros=77,
    ),
    frame(
        "hidden, scaled",
        kind="hidden",
        codec="fp16",
        scaled=True,
        payload=b"\x05" + ROW_FP16,
        start=2,
        sequence=4,
        micros=9,
    ),
]

# name, bytes, error code, fields; checks are made in the order of this list
BAD_FRAMES = [
    ("empty", b"", "frame-truncated", {"length": 0, "needed": 28}),
    ("one byte short of a header", header()[:27], "frame-truncated", {"length": 27, "needed": 28}),
    ("version 0", header(version=0) + ROW_FP32, "frame-version", {"found": 0, "expected": 1}),
    ("version 2", header(version=2) + ROW_FP32, "frame-version", {"found": 2, "expected": 1}),
    ("kind 0", header(kind=0) + ROW_FP32, "frame-unknown-kind", {"kind": 0}),
    ("kind 3", header(kind=3) + ROW_FP32, "frame-unknown-kind", {"kind": 3}),
    ("a reserved flag", header(flags=2) + ROW_FP32, "frame-unknown-flags", {"flags": 2}),
    ("all flags", header(flags=255) + ROW_FP32, "frame-unknown-flags", {"flags": 255}),
    ("codec 0", header(codec=0) + ROW_FP32, "frame-unknown-codec", {"codec": 0}),
    ("codec 4", header(codec=4) + ROW_FP32, "frame-unknown-codec", {"codec": 4}),
    (
        "one position too many",
        header(tokens=9, length=144) + ROW_FP32 * 9,
        "frame-oversized",
        {"length": 144, "limit": 128},
    ),
    (
        "absurdly many positions",
        header(tokens=MAX, length=MAX),
        "frame-oversized",
        {"length": MAX * 16, "limit": 128},
    ),
    (
        "length below what the positions need",
        header(length=12) + ROW_FP32[:12],
        "frame-length-mismatch",
        {"length": 12, "expected": 16},
    ),
    (
        "length above what the positions need",
        header(length=20) + ROW_FP32 + b"\0" * 4,
        "frame-length-mismatch",
        {"length": 20, "expected": 16},
    ),
    (
        "exponents announced but absent",
        header(flags=1) + ROW_FP32,
        "frame-length-mismatch",
        {"length": 16, "expected": 17},
    ),
    (
        "payload cut off",
        header() + ROW_FP32[:15],
        "frame-length-mismatch",
        {"length": 15, "expected": 16},
    ),
    (
        "a byte too many",
        header() + ROW_FP32 + b"\0",
        "frame-length-mismatch",
        {"length": 17, "expected": 16},
    ),
    ("no payload", header(), "frame-length-mismatch", {"length": 0, "expected": 16}),
]


# --- control messages ---------------------------------------------------------------------------

HELLO = {
    "type": "hello",
    "protocol": 1,
    "fingerprint": "00112233445566778899aabbccddeeff",
    "head_layers": 1,
    "tail_layers": 1,
    "hidden_size": 4096,
    "codecs": ["fp16", "bf16", "fp32"],
    "max_positions": 2048,
    "witnesses": {"model.layers.1.mlp.up_proj.weight": "ffeeddccbbaa99887766554433221100"},
    "agent": "device/1.0",
    "replay_positions": 0,
}
HELLO_DEFAULTS = {"witnesses": {}, "agent": "", "replay_positions": 0}
WELCOME = {
    "type": "welcome",
    "session": "4f1c2b7d90e3a856",
    "codec": "fp16",
    "max_positions": 2048,
    "max_chunk_tokens": 512,
    "max_in_flight": 8,
    "agent": "lambda-split/0.1.0",
}
REJECTION = {
    "type": "error",
    "code": "position-gap",
    "message": "a chunk starts at position 9, the trunk holds 7",
    "fields": {"start": 9, "length": 7},
    "sequence": 12,
}
REFUSAL = {
    "type": "error",
    "code": "width-refused",
    "message": "the bundle's hidden size is 64, the server's 4096",
    "fields": {"asked": 64, "served": 4096},
    "sequence": None,
}
BYE = {"type": "bye", "reason": "done"}


def without(message, field):
    return json.dumps({key: value for key, value in message.items() if key != field})


# name, text, the message with all its fields
MESSAGES = [
    ("hello", json.dumps(HELLO), HELLO),
    (
        "hello, only what it must have",
        json.dumps({k: v for k, v in HELLO.items() if k not in HELLO_DEFAULTS}),
        HELLO | HELLO_DEFAULTS,
    ),
    (
        "hello before a replay",
        json.dumps(HELLO | {"replay_positions": 1234}),
        HELLO | {"replay_positions": 1234},
    ),
    ("hello with a field of a later version", json.dumps(HELLO | {"color": ["blue"]}), HELLO),
    (
        "hello with an unknown codec",
        json.dumps(HELLO | {"codecs": ["int4"]}),
        HELLO | {"codecs": ["int4"]},
    ),
    ("welcome", json.dumps(WELCOME), WELCOME),
    (
        "welcome without the optional fields",
        json.dumps({k: v for k, v in WELCOME.items() if k not in {"max_in_flight", "agent"}}),
        WELCOME | {"max_in_flight": 1, "agent": ""},
    ),
    ("error that answers a forward", json.dumps(REJECTION), REJECTION),
    ("error that ends the connection", json.dumps(REFUSAL), REFUSAL),
    ("error without facts", without(REFUSAL, "fields"), REFUSAL | {"fields": {}}),
    ("error without a sequence number", without(REFUSAL, "sequence"), REFUSAL),
    (
        "error with the largest number",
        json.dumps(REFUSAL | {"fields": {"asked": 2**53 - 1}}),
        REFUSAL | {"fields": {"asked": 2**53 - 1}},
    ),
    ("bye", json.dumps(BYE), BYE),
    ("bye without a reason", '{"type":"bye"}', BYE | {"reason": ""}),
    ("white space and any order of fields", ' {\n"reason" : "done", "type":"bye" } ', BYE),
]


BAD_MESSAGES = [
    ("empty", ""),
    ("not JSON", "hello"),
    ("cut off", '{"type":"bye"'),
    ("two values", '{"type":"bye"}{"type":"bye"}'),
    ("an array", '["bye"]'),
    ("null", "null"),
    ("no type", '{"reason":"done"}'),
    ("an unknown type", '{"type":"ping"}'),
    ("a type that is no string", '{"type":1}'),
    *(
        (f"hello without {field}", without(HELLO, field))
        for field in HELLO
        if field not in {"type", *HELLO_DEFAULTS}
    ),
    *(
        (f"welcome without {field}", without(WELCOME, field))
        for field in ("session", "codec", "max_positions", "max_chunk_tokens")
    ),
    *((f"error without {field}", without(REFUSAL, field)) for field in ("code", "message")),
    ("a number below 0", json.dumps(HELLO | {"max_positions": -1})),
    ("a number above 32 bits", json.dumps(HELLO | {"max_positions": 2**32})),
    ("a replay below 0", json.dumps(HELLO | {"replay_positions": -1})),
    ("a replay above 32 bits", json.dumps(HELLO | {"replay_positions": 2**32})),
    ("a fraction for a number", json.dumps(HELLO | {"max_positions": 1.5})),
    ("text for a number", json.dumps(HELLO | {"max_positions": "2048"})),
    ("a number for text", json.dumps(HELLO | {"agent": 1})),
    ("a boolean among the facts", json.dumps(REFUSAL | {"fields": {"asked": True}})),
    ("a fact beyond 53 bits", json.dumps(REFUSAL | {"fields": {"asked": 2**53}})),
    ("a digest in capitals", json.dumps(HELLO | {"fingerprint": "AABBCCDD00112233"})),
    ("a digest too short", json.dumps(HELLO | {"fingerprint": "0011223"})),
    ("a digest too long", json.dumps(HELLO | {"fingerprint": "0" * 65})),
    ("a digest with a line feed", json.dumps(HELLO | {"fingerprint": "0" * 32 + "\n"})),
    ("a witness that is no digest", json.dumps(HELLO | {"witnesses": {"a": "x"}})),
    ("33 witnesses", json.dumps(HELLO | {"witnesses": {str(i): "0" * 8 for i in range(33)}})),
    ("17 codecs", json.dumps(HELLO | {"codecs": ["fp16"] * 17})),
    ("a codec name of 33 characters", json.dumps(HELLO | {"codecs": ["x" * 33]})),
    ("an agent of 257 characters", json.dumps(HELLO | {"agent": "x" * 257})),
    ("no positions in a chunk", json.dumps(WELCOME | {"max_chunk_tokens": 0})),
    ("too many positions in a chunk", json.dumps(WELCOME | {"max_chunk_tokens": 2**20 + 1})),
    ("nothing in flight", json.dumps(WELCOME | {"max_in_flight": 0})),
    ("17 facts", json.dumps(REFUSAL | {"fields": {str(i): i for i in range(17)}})),
    ("a sentence of 2049 characters", json.dumps(REFUSAL | {"message": "x" * 2049})),
    ("more than 16384 bytes", json.dumps(BYE) + " " * 16384),
]


def frame_vectors():
    return {
        "about": "frames are parsed with this width and limit; texts are UTF-8",
        "width": WIDTH,
        "max_tokens": MAX_TOKENS,
        "frames": FRAMES,
        "frames_rejected": [
            {"name": name, "hex": data.hex(), "error": error, "fields": fields}
            for name, data, error, fields in BAD_FRAMES
        ],
        "messages": [
            {"name": name, "text": text, "message": message} for name, text, message in MESSAGES
        ],
        "messages_rejected": [
            {"name": name, "text": text, "error": "message-malformed"}
            for name, text in BAD_MESSAGES
        ],
    }


def vectors():
    """File names and their texts."""
    made = {"frames.json": frame_vectors(), "codecs.json": codec_vectors()}
    return {name: json.dumps(content, indent=1) + "\n" for name, content in made.items()}


if __name__ == "__main__":
    for file_name, text in vectors().items():
        (FOLDER / file_name).write_text(text, encoding="utf-8")
        print(FOLDER / file_name)

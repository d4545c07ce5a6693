"""Writes the golden vectors ``picture_frames.json`` beside this file.

Uses nothing of the package: headers are laid out with ``struct`` alone. Run it with
``python tests/vectors/make_picture_vectors.py``; a test checks that the committed file is what it
writes.
"""

import json
import pathlib
import struct

FOLDER = pathlib.Path(__file__).parent
MAX = 0xFFFFFFFF
KINDS = {"picture": 3, "step": 4, "noise": 5}
FORMATS = {
    "fp32": 1,
    "fp16": 2,
    "bf16": 3,
    "fp8-e4m3": 4,
    "int8": 15,
    "nf4": 19,
    "nf4-delta": 19 + 128,
    "nf4-channel-delta": 19 + 64 + 128,
    "nf8-channel": 23 + 64,
}


def header(
    *,
    version=1,
    kind=4,
    flags=0,
    codec=1,
    step=0,
    tensors=0,
    settings_bytes=0,
    sequence=0,
    micros=0,
    length=0,
):
    numbers = (version, kind, flags, codec, step, tensors, settings_bytes, sequence, micros, length)
    return struct.pack("<BBBBIIIIII", *numbers)


def frame(name, *, kind, form, payload=b"", **numbers):
    facts = {"step": 0, "tensors": 0, "settings_bytes": 0, "sequence": 0, "micros": 0} | numbers
    data = header(kind=KINDS[kind], codec=FORMATS[form], length=len(payload), **facts)
    return {
        "name": name,
        "hex": (data + payload).hex(),
        "frame": {"kind": kind, "format": form, **facts, "payload": payload.hex()},
    }


WHOLE = json.dumps(
    {
        "images": 1,
        "height": 2,
        "width": 1,
        "context_tokens": 1,
        "denoising": {
            "scheduler": {"_class_name": "EulerDiscreteScheduler"},
            "steps": 20,
            "seed": 7,
        },
    }
).encode()
DEEP = json.dumps(
    {
        "images": 1,
        "height": 2,
        "width": 1,
        "context_tokens": 1,
        "negative": "sent",
        "timesteps": [999.0, 499.0, 1.0],
    }
).encode()
CONTEXT = struct.pack("<3e", 1.0, -2.0, 0.5)  # a position of width 3
POOLED = struct.pack("<2e", 0.25, -0.5)
LATENTS = struct.pack("<4f", 1.0, -2.0, 0.5, 0.0)  # 1 image, 2 channels, 2 × 1
GROUP = struct.pack("<2f", 0.0, 1.0)  # mean and scale, or low and high

FRAMES = [
    frame(
        "a picture of the whole split begins: settings, context and pooled output in fp16",
        kind="picture",
        form="fp16",
        tensors=2,
        settings_bytes=len(WHOLE),
        payload=WHOLE + CONTEXT + POOLED,
    ),
    frame(
        "a picture of the deep split begins: context of prompt and negative prompt",
        kind="picture",
        form="fp16",
        tensors=1,
        settings_bytes=len(DEEP),
        sequence=4,
        payload=DEEP + 2 * CONTEXT,
    ),
    frame("a step from where the trunk is", kind="step", form="nf4-delta", step=258, sequence=5),
    frame(
        "a step from a state: latents in fp32 whatever the format",
        kind="step",
        form="nf4-channel-delta",
        tensors=1,
        sequence=1,
        payload=LATENTS,
    ),
    frame(
        "a step from a state of three tensors",
        kind="step",
        form="nf4-delta",
        step=2,
        tensors=3,
        sequence=1,
        payload=LATENTS * 3,
    ),
    frame(
        "a step of the deep split: two rows of two channels of one position",
        kind="step",
        form="nf8-channel",
        step=1,
        tensors=1,
        sequence=6,
        payload=GROUP * 4 + bytes((0, 127, 128, 255)),
    ),
    frame(
        "a picture has begun",
        kind="noise",
        form="fp16",
        sequence=4,
        micros=12,
    ),
    frame(
        "noise in 4 bits",
        kind="noise",
        form="nf4-delta",
        step=258,
        tensors=1,
        sequence=5,
        micros=70000,
        payload=GROUP + bytes((0x10, 0xFE)),
    ),
    frame(
        "noise in fp8",
        kind="noise",
        form="fp8-e4m3",
        step=19,
        tensors=1,
        sequence=9,
        payload=bytes((0x38, 0xC0, 0x30, 0x00)),
    ),
    frame(
        "the largest numbers: well formed, not what a session takes",
        kind="noise",
        form="int8",
        step=MAX,
        tensors=MAX,
        settings_bytes=2,
        sequence=MAX,
        micros=MAX,
        payload=b"{}",
    ),
]
# As the frames above: the longest of them.
MAX_PAYLOAD = max(len(each["frame"]["payload"]) // 2 for each in FRAMES)

# name, bytes, error code, fields; checks are made in the order of this list
BAD_FRAMES = [
    ("empty", b"", "frame-truncated", {"length": 0, "needed": 28}),
    ("one byte short of a header", header()[:27], "frame-truncated", {"length": 27, "needed": 28}),
    ("version 0", header(version=0), "frame-version", {"found": 0, "expected": 1}),
    ("version 2", header(version=2, kind=9), "frame-version", {"found": 2, "expected": 1}),
    ("kind 0", header(kind=0), "frame-unknown-kind", {"kind": 0}),
    ("a forward of text", header(kind=1), "frame-unknown-kind", {"kind": 1}),
    ("a hidden of text", header(kind=2), "frame-unknown-kind", {"kind": 2}),
    ("kind 6", header(kind=6, flags=1), "frame-unknown-kind", {"kind": 6}),
    ("the flag of text", header(flags=1), "frame-unknown-flags", {"flags": 1}),
    ("all flags", header(flags=255, codec=0), "frame-unknown-flags", {"flags": 255}),
    ("format 0", header(codec=0), "frame-unknown-codec", {"codec": 0}),
    ("between the bases", header(codec=6), "frame-unknown-codec", {"codec": 6}),
    ("behind the bases", header(codec=24), "frame-unknown-codec", {"codec": 24}),
    ("fp16 by channel", header(codec=2 + 64), "frame-unknown-codec", {"codec": 66}),
    (
        "a difference in fp32",
        header(codec=1 + 128, length=MAX),
        "frame-unknown-codec",
        {"codec": 129},
    ),
    (
        "a byte more than the limit",
        header(length=MAX_PAYLOAD + 1) + bytes(MAX_PAYLOAD + 1),
        "frame-oversized",
        {"length": MAX_PAYLOAD + 1, "limit": MAX_PAYLOAD},
    ),
    (
        "absurdly long",
        header(length=MAX),
        "frame-oversized",
        {"length": MAX, "limit": MAX_PAYLOAD},
    ),
    (
        "payload cut off",
        header(tensors=1, length=16) + LATENTS[:15],
        "frame-length-mismatch",
        {"length": 15, "expected": 16},
    ),
    (
        "a byte too many",
        header(tensors=1, length=16) + LATENTS + b"\0",
        "frame-length-mismatch",
        {"length": 17, "expected": 16},
    ),
    (
        "no payload",
        header(tensors=1, length=16, settings_bytes=17),
        "frame-length-mismatch",
        {"length": 0, "expected": 16},
    ),
    (
        "settings longer than the payload",
        header(kind=3, settings_bytes=3, length=2) + b"{}",
        "frame-length-mismatch",
        {"length": 2, "expected": 3},
    ),
    (
        "absurdly long settings",
        header(kind=3, settings_bytes=MAX, length=2) + b"{}",
        "frame-length-mismatch",
        {"length": 2, "expected": MAX},
    ),
]


def vectors():
    """What stands in the file."""
    return {
        "about": "frames are parsed with this limit; what they have to be is for a session to say",
        "max_payload": MAX_PAYLOAD,
        "frames": FRAMES,
        "frames_rejected": [
            {"name": name, "hex": data.hex(), "error": error, "fields": fields}
            for name, data, error, fields in BAD_FRAMES
        ],
    }


if __name__ == "__main__":
    path = FOLDER / "picture_frames.json"
    path.write_text(json.dumps(vectors(), indent=1) + "\n", encoding="utf-8")
    print(path)

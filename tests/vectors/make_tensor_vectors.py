"""Writes the golden vectors ``tensor_codecs.json`` beside this file.

Uses nothing of the package, and neither numpy nor torch: formats are put together here from their
description, bits are packed as one large integer, 8-bit floats are found by comparing with all of
them, and ``struct`` rounds binary64 to binary32. Run it with
``python tests/vectors/make_tensor_vectors.py``; a test checks that the committed file is what it
writes.
"""

import json
import math
import pathlib
import statistics
import struct

FOLDER = pathlib.Path(__file__).parent
FLOATS = {"fp32": 1, "fp16": 2, "bf16": 3, "fp8-e4m3": 4, "fp8-e5m2": 5}
FLOAT_BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "fp8-e4m3": 8, "fp8-e5m2": 8}
INTEGERS = {f"int{bits}": 7 + bits for bits in range(1, 9)}
NORMALS = {f"nf{bits}": 15 + bits for bits in range(1, 9)}
BASES = FLOATS | INTEGERS | NORMALS
FLOAT32_MAX = 2.0**128 - 2.0**104


def formats():
    """Label to code of every format."""
    found = {}
    for base, code in BASES.items():
        for channel in ("", "-channel") if base not in FLOATS else ("",):
            for delta in ("", "-delta") if base != "fp32" else ("",):
                found[base + channel + delta] = code + 64 * bool(channel) + 128 * bool(delta)
    return found


def as_float32(value):
    """The float32 nearest to a number, or with exactly the given bits."""
    if isinstance(value, str):
        return struct.unpack("<f", struct.pack("<I", int(value, 16)))[0]
    return struct.unpack("<f", struct.pack("<f", value))[0]


def float32_bytes(values):
    return struct.pack(f"<{len(values)}f", *values)


# --- one value ----------------------------------------------------------------------------------


def float8_values(base):
    """The value of each code, None where it is none."""
    mantissa_bits, bias, largest = {"fp8-e4m3": (3, 7, 0x7E), "fp8-e5m2": (2, 15, 0x7B)}[base]
    positive = []
    for code in range(128):
        exponent, mantissa = code >> mantissa_bits, code & (2**mantissa_bits - 1)
        hidden = 2**mantissa_bits if exponent else 0
        value = math.ldexp(hidden + mantissa, max(exponent, 1) - bias - mantissa_bits)
        positive.append(value if code <= largest else None)
    return positive + [None if value is None else -value for value in positive]


FLOAT8_VALUES = {base: float8_values(base) for base in ("fp8-e4m3", "fp8-e5m2")}


def float8_code(value, base):
    """The nearest value's code; between two the even one."""
    sign = 0x80 if math.copysign(1, value) < 0 else 0
    known = [
        (abs(abs(value) - v), c % 2, c)
        for c, v in enumerate(FLOAT8_VALUES[base][:128])
        if v is not None
    ]
    return min(known)[2] | sign


def bf16_bits(value):
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    below, rest = bits >> 16, bits & 0xFFFF
    return below + (rest > 0x8000 or (rest == 0x8000 and below % 2 == 1))


def normal_levels(bits):
    count, normal = 2**bits, statistics.NormalDist()
    upper = [
        as_float32(math.sqrt(3) * normal.inv_cdf((i + 0.5) / count))
        for i in range(count // 2, count)
    ]
    return [-level for level in reversed(upper)] + upper


NORMAL_LEVELS = {bits: normal_levels(bits) for bits in range(1, 9)}


def level(base, bits, first, second, code):
    """What a code stands for in a group with these two parameters."""
    if base in INTEGERS:
        last = 2**bits - 1
        return as_float32((first * (last - code) + second * code) / last)
    value = first + second * NORMAL_LEVELS[bits][code]
    return as_float32(max(-FLOAT32_MAX, min(value, FLOAT32_MAX)))


# --- tensors ------------------------------------------------------------------------------------


def parts(label):
    """Base, bits of a code, per channel, delta."""
    delta = label.endswith("-delta")
    rest = label.removesuffix("-delta")
    base = rest.removesuffix("-channel")
    bits = FLOAT_BITS.get(base) or int(base.lstrip("intf"))
    return base, bits, rest != base, delta


def pack(codes, bits):
    stream = sum(code << (i * bits) for i, code in enumerate(codes))
    return stream.to_bytes(-(-len(codes) * bits // 8), "little")


def group_count(label, shape):
    return shape[0] * (shape[1] if parts(label)[2] else 1)


def payload_of(label, codes, parameters=()):
    """The payload of codes in order, behind the groups' parameters."""
    return float32_bytes(parameters) + pack(codes, parts(label)[1])


def decode(label, shape, payload, reference=None):
    """The values that a payload stands for."""
    base, bits, _, _ = parts(label)
    count = math.prod(shape)
    if not count:
        return []
    if base in FLOATS:
        if base == "bf16":
            values = [
                as_float32(f"{bits << 16:08x}") for bits in struct.unpack(f"<{count}H", payload)
            ]
        elif base in FLOAT8_VALUES:
            values = [FLOAT8_VALUES[base][code] for code in payload]
        else:
            values = struct.unpack(f"<{count}{'f' if base == 'fp32' else 'e'}", payload)
    else:
        groups = group_count(label, shape)
        parameters = struct.unpack_from(f"<{2 * groups}f", payload)
        stream = int.from_bytes(payload[8 * groups :], "little")
        values = []
        for i in range(count):
            group = i // (count // groups)
            code = stream >> (i * bits) & (2**bits - 1)
            values.append(level(base, bits, *parameters[2 * group : 2 * group + 2], code))
    if reference is not None:
        # The sum of two float32 in binary64, rounded again, is the float32 sum.
        values = [as_float32(a + b) for a, b in zip(reference, values, strict=True)]
    return values


def encode(label, shape, values, reference=None):
    """The payload where a sender has no choice, or in ``int`` takes what is nearest."""
    base, bits, _, _ = parts(label)
    if reference is not None:
        values = [as_float32(a - b) for a, b in zip(values, reference, strict=True)]
    if base == "fp32":
        return float32_bytes(values)
    if base == "fp16":
        return struct.pack(f"<{len(values)}e", *values)
    if base == "bf16":
        return struct.pack(f"<{len(values)}H", *map(bf16_bits, values))
    if base in FLOAT8_VALUES:
        return bytes(float8_code(value, base) for value in values)
    if not values:
        return b""
    size, last = len(values) // group_count(label, shape), 2**bits - 1
    parameters, codes = [], []
    for first in range(0, len(values), size):
        group = values[first : first + size]
        low, high = min(group), max(group)
        parameters += [low, high]
        codes += [round((v - low) * last / (high - low)) if high > low else 0 for v in group]
    return payload_of(label, codes, parameters)


# --- the vectors --------------------------------------------------------------------------------


def noise(count, seed):
    """Numbers between -4 and 4 that look like noise, multiples of 2**-12."""
    state, found = seed, []
    for _ in range(count):
        total = 0
        for _ in range(4):
            state = (state * 1103515245 + 12345) % 2**31
            total += (state >> 16) % 8192 - 4096
        found.append(total / 4096)
    return found


ODD = (2, 3, 5)  # 30 values: the last byte is not full but for even numbers of bits
SUBNORMAL = [
    as_float32(bits)
    for bits in ("00000001", "80000001", "007fffff", "00000000", "80000000", "00800000")
]
TIES_E4M3 = [
    as_float32(v)
    for v in (1.0625, 1.1875, 1 + 2**-4 + 2**-23, 17, 464, 2**-10, 3 * 2**-10, -(2**-10))
]
TIES_E5M2 = [
    as_float32(v) for v in (1.125, 1.375, 1.125 + 2**-23, 9, 57344, 2**-17, 3 * 2**-17, -(2**-17))
]

# name, labels, shape, values, reference
ENCODED = [
    ("noise", [*FLOATS, *INTEGERS], ODD, noise(30, 1), None),
    (
        "noise, groups of channels",
        [f"int{b}-channel" for b in range(1, 9)],
        ODD,
        noise(30, 2),
        None,
    ),
    (
        "a difference",
        [
            "fp16-delta",
            "bf16-delta",
            "fp8-e4m3-delta",
            "fp8-e5m2-delta",
            "int4-delta",
            "int3-channel-delta",
        ],
        ODD,
        noise(30, 3),
        noise(30, 4),
    ),
    ("a difference to nothing", ["fp16-delta", "int5-delta"], (1, 2, 3), noise(6, 5), None),
    ("subnormal values and both zeros", [*FLOATS], (1, 6), SUBNORMAL, None),
    ("ties go to the even one", ["fp8-e4m3"], (1, 8), TIES_E4M3, None),
    ("ties go to the even one", ["fp8-e5m2"], (1, 8), TIES_E5M2, None),
    ("equal values", ["int1", "int4", "int8"], (1, 1, 3), [as_float32(0.1)] * 3, None),
    ("negative zeros", ["fp16", "fp8-e4m3", "int2", "int8"], (1, 1, 3), [-0.0] * 3, None),
    ("the ends of float32", ["fp32", "int1", "int8"], (1, 2), [-FLOAT32_MAX, FLOAT32_MAX], None),
    ("one value", [*FLOATS, "int3"], (1, 1), [-7.25], None),
    ("no values", ["fp32", "fp8-e4m3", "int3", "int3-channel"], (1, 0, 4), [], None),
]
LARGEST, LEAST = as_float32("7f7fffff"), as_float32("00000001")
# name, label, shape, codes, parameters, reference
DECODED = [
    *(
        (
            "noise",
            label,
            ODD,
            [(11 * i + 7 * i * i) % 2 ** parts(label)[1] for i in range(30)],
            [
                as_float32(v)
                for v in ((0.1, 1.1) if not parts(label)[2] else (0.1, 1.1, -0.3, 0.7, 2, 3)) * 2
            ],
            noise(30, 6) if parts(label)[3] else None,
        )
        for base in NORMALS
        for label in (base, f"{base}-channel", f"{base}-delta", f"{base}-channel-delta")
    ),
    *(
        ("every level", f"nf{b}", (1, 2**b), range(2**b), [as_float32(-0.7), as_float32(1.3)], None)
        for b in range(1, 9)
    ),
    *(
        (
            "every level",
            f"int{b}",
            (1, 2**b),
            range(2**b),
            [as_float32(-0.7), as_float32(1.3)],
            None,
        )
        for b in range(1, 9)
    ),
    ("no scale: the mean", "nf4", (1, 3), [0, 7, 15], [as_float32(0.1), 0.0], None),
    ("no scale: a negative zero", "nf4", (1, 2), [0, 15], [-0.0, 0.0], None),
    ("a negative scale", "nf2", (1, 4), [0, 1, 2, 3], [1.0, -1.0], None),
    ("levels beyond float32 are its ends", "nf8", (1, 3), [0, 128, 255], [1.0, LARGEST], None),
    ("subnormal parameters", "nf3", (1, 8), range(8), [LEAST, LEAST], None),
    ("subnormal parameters", "int3", (1, 8), range(8), [-LEAST, as_float32("00000013")], None),
    ("a range beyond float32", "int4", (1, 16), range(16), [-LARGEST, LARGEST], None),
    ("low above high", "int2", (1, 4), range(4), [3.0, 0.0], None),
    ("two images and their groups", "int1", (2, 1, 2), [0, 1, 1, 0], [1.0, 2.0, -5.0, 5.0], None),
    (
        "a sum is rounded",
        "int1-delta",
        (1, 2),
        [0, 1],
        [as_float32(2**-24), 3 * 2**-24],
        [1.0, 1.0],
    ),
    ("a sum of opposite values is 0", "nf1-delta", (1, 1), [0], [-1.0, 0.0], [1.0]),
    ("no reference: nothing is added", "int1-delta", (1, 2), [0, 1], [-0.0, 1.0], None),
]
# name, label, shape, payload, reference, error
NOT_DECODED = [
    ("too short", "int4", (1, 4), b"\0" * 9, None, "frame-length-mismatch"),
    ("too long", "int4", (1, 4), b"\0" * 11, None, "frame-length-mismatch"),
    ("parameters missing", "int8-channel", (1, 2, 1), b"\0" * 10, None, "frame-length-mismatch"),
    ("a byte where there are no values", "fp16", (1, 0), b"\0", None, "frame-length-mismatch"),
    ("a bit behind the last code", "int3", (1, 3), b"\0" * 8 + b"\0\2", None, "frame-padding"),
    ("the last bit", "nf1", (1, 1), b"\0" * 8 + b"\x80", None, "frame-padding"),
    (
        "low is not a number",
        "int8",
        (1, 1),
        bytes.fromhex("0000c07f 00000000 00"),
        None,
        "non-finite",
    ),
    ("high is infinite", "int8", (1, 1), bytes.fromhex("00000000 0000807f 00"), None, "non-finite"),
    (
        "a scale is infinite",
        "nf8",
        (1, 1),
        bytes.fromhex("00000000 000080ff 00"),
        None,
        "non-finite",
    ),
    ("fp32 infinity", "fp32", (1, 1), bytes.fromhex("0000807f"), None, "non-finite"),
    ("fp16 not a number", "fp16", (1, 1), bytes.fromhex("007e"), None, "non-finite"),
    ("bf16 infinity", "bf16", (1, 1), bytes.fromhex("80ff"), None, "non-finite"),
    ("e4m3 not a number", "fp8-e4m3", (1, 1), b"\x7f", None, "non-finite"),
    ("e4m3 not a number, negative", "fp8-e4m3", (1, 1), b"\xff", None, "non-finite"),
    ("e5m2 infinity", "fp8-e5m2", (1, 1), b"\x7c", None, "non-finite"),
    ("e5m2 not a number", "fp8-e5m2", (1, 1), b"\xfe", None, "non-finite"),
    (
        "a sum beyond float32",
        "int1-delta",
        (1, 1),
        float32_bytes([LARGEST] * 2) + b"\0",
        [LARGEST],
        "non-finite",
    ),
]
# name, labels, values, reference, error
NOT_ENCODED = [
    ("not a number", [*BASES], ["7fc00000", 0.0], None, "non-finite"),
    ("infinity", [*BASES], [0.0, "ff800000"], None, "non-finite"),
    ("beyond fp16", ["fp16"], [1.0, 65505.0], None, "codec-overflow"),
    ("beyond bf16", ["bf16"], [1.0, "7f7f8000"], None, "codec-overflow"),
    ("beyond e4m3", ["fp8-e4m3"], [1.0, "43e80001"], None, "codec-overflow"),
    ("beyond e5m2", ["fp8-e5m2"], [1.0, -61440.0], None, "codec-overflow"),
    (
        "a difference beyond float32",
        [f"{base}-delta" for base in BASES if base != "fp32"],
        [0.0, FLOAT32_MAX],
        [0.0, -FLOAT32_MAX],
        "codec-overflow",
    ),
]


def hexed(values):
    """float32 bytes in hex; from bits where given, since a float would not keep every NaN."""
    if values is None:
        return None
    bits = (
        struct.pack("<I", int(v, 16)) if isinstance(v, str) else struct.pack("<f", v)
        for v in values
    )
    return b"".join(bits).hex()


def vectors():
    encoded, decoded = [], []
    for name, labels, shape, values, reference in ENCODED:
        for label in labels:
            payload = encode(label, shape, values, reference)
            encoded.append(
                {
                    "name": name,
                    "codec": label,
                    "shape": shape,
                    "values": hexed(values),
                    "reference": hexed(reference),
                    "payload": payload.hex(),
                    "decoded": hexed(decode(label, shape, payload, reference)),
                }
            )
    for name, label, shape, codes, parameters, reference in DECODED:
        payload = payload_of(label, list(codes), parameters)
        decoded.append(
            {
                "name": name,
                "codec": label,
                "shape": shape,
                "reference": hexed(reference),
                "payload": payload.hex(),
                "decoded": hexed(decode(label, shape, payload, reference)),
            }
        )
    return {
        "about": "floats are float32 little-endian in hex, row-major; codec is the format's label; "
        "reference is null where there is none; float8_values has 7fc00000 where a code has none",
        "formats": formats(),
        "normal_levels": {str(bits): hexed(levels) for bits, levels in NORMAL_LEVELS.items()},
        "float8_values": {
            base: hexed(["7fc00000" if value is None else value for value in values])
            for base, values in FLOAT8_VALUES.items()
        },
        "encode": encoded,
        "decode": decoded,
        "encode_rejected": [
            {
                "name": name,
                "codec": label,
                "shape": [1, len(values)],
                "values": hexed(values),
                "reference": hexed(reference),
                "error": error,
            }
            for name, labels, values, reference, error in NOT_ENCODED
            for label in labels
        ],
        "decode_rejected": [
            {
                "name": name,
                "codec": label,
                "shape": shape,
                "payload": payload.hex(),
                "reference": hexed(reference),
                "error": error,
            }
            for name, label, shape, payload, reference, error in NOT_DECODED
        ],
    }


if __name__ == "__main__":
    path = FOLDER / "tensor_codecs.json"
    path.write_text(json.dumps(vectors(), indent=1) + "\n", encoding="utf-8")
    print(path)

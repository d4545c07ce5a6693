"""The handshake's rules, one line each."""

import dataclasses

import msgspec
import pytest

from lambda_split.errors import (
    CodecRefused,
    FingerprintRefused,
    PositionsRefused,
    SplitRefused,
    VersionRefused,
    WidthRefused,
)
from lambda_split.wire.frames import Codec
from lambda_split.wire.handshake import Accepted, ServerOffer, accept_hello
from lambda_split.wire.messages import Hello

HELLO = Hello(
    protocol=1,
    fingerprint="00112233",
    head_layers=1,
    tail_layers=1,
    hidden_size=64,
    codecs=("fp16", "fp32"),
    max_positions=100,
    witnesses={"w.1": "aabbccdd"},
)
OFFER = ServerOffer(
    fingerprint="00112233",
    hidden_size=64,
    layer_count=10,
    layers=range(1, 9),
    max_positions=100,
    witnesses={"w.1": "aabbccdd", "w.2": "01234567"},
)


@pytest.mark.parametrize(
    ("changes", "offer", "accepted"),
    [
        ({}, {}, Accepted(Codec.FP16, range(1, 9), 100)),
        ({"max_positions": 1}, {}, Accepted(Codec.FP16, range(1, 9), 1)),
        ({"head_layers": 8}, {}, Accepted(Codec.FP16, range(8, 9), 100)),
        ({"head_layers": 3, "tail_layers": 4}, {}, Accepted(Codec.FP16, range(3, 6), 100)),
        (
            {"head_layers": 0, "tail_layers": 0},
            {"layers": range(10)},
            Accepted(Codec.FP16, range(10), 100),
        ),
        ({"codecs": ("int3", "fp32")}, {}, Accepted(Codec.FP32, range(1, 9), 100)),
        ({}, {"codecs": (Codec.BF16, Codec.FP32)}, Accepted(Codec.FP32, range(1, 9), 100)),
        ({"witnesses": {}}, {}, Accepted(Codec.FP16, range(1, 9), 100)),
        ({"witnesses": {"w.0": "00000000"}}, {}, Accepted(Codec.FP16, range(1, 9), 100)),
    ],
)
def test_a_hello_that_fits_is_accepted(changes, offer, accepted):
    hello = msgspec.structs.replace(HELLO, **changes)
    assert accept_hello(hello, dataclasses.replace(OFFER, **offer)) == accepted


@pytest.mark.parametrize(
    ("changes", "error", "fields"),
    [
        ({"protocol": 0}, VersionRefused, {"asked": 0, "served": 1}),
        ({"protocol": 2}, VersionRefused, {"asked": 2, "served": 1}),
        (
            {"fingerprint": "99999999"},
            FingerprintRefused,
            {"asked": "99999999", "served": "00112233", "what": "fingerprint"},
        ),
        (
            {"witnesses": {"w.0": "00000000", "w.2": "76543210"}},
            FingerprintRefused,
            {"asked": "76543210", "served": "01234567", "what": "tensor w.2"},
        ),
        ({"hidden_size": 65}, WidthRefused, {"asked": 65, "served": 64}),
        (
            {"head_layers": 0},
            SplitRefused,
            {"head_layers": 0, "tail_layers": 1, "first_layer": 1, "last_layer": 8},
        ),
        (
            {"tail_layers": 0},
            SplitRefused,
            {"head_layers": 1, "tail_layers": 0, "first_layer": 1, "last_layer": 8},
        ),
        (
            {"head_layers": 5, "tail_layers": 5},
            SplitRefused,
            {"head_layers": 5, "tail_layers": 5, "first_layer": 1, "last_layer": 8},
        ),
        (
            {"head_layers": 2**32 - 1, "tail_layers": 2**32 - 1},
            SplitRefused,
            {
                "head_layers": 2**32 - 1,
                "tail_layers": 2**32 - 1,
                "first_layer": 1,
                "last_layer": 8,
            },
        ),
        (
            {"codecs": ("int3", "int2")},
            CodecRefused,
            {"asked": "int3, int2", "served": "fp32, fp16, bf16"},
        ),
        ({"codecs": ()}, CodecRefused, {"asked": "none", "served": "fp32, fp16, bf16"}),
        ({"max_positions": 0}, PositionsRefused, {"asked": 0, "limit": 100}),
        ({"max_positions": 101}, PositionsRefused, {"asked": 101, "limit": 100}),
    ],
)
def test_a_hello_that_does_not_fit_is_refused(changes, error, fields):
    with pytest.raises(error) as caught:
        accept_hello(msgspec.structs.replace(HELLO, **changes), OFFER)
    assert type(caught.value) is error
    assert caught.value.wire_fields() == fields

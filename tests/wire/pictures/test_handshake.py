"""The handshake's rules for pictures, one line each."""

import dataclasses

import msgspec
import pytest

from lambda_split.errors import (
    CodecRefused,
    DenoiserSplitRefused,
    FingerprintRefused,
    PictureRefused,
    VersionRefused,
)
from lambda_split.wire.messages import PictureHello
from lambda_split.wire.pictures.handshake import (
    AcceptedPictures,
    PictureOffer,
    accept_picture_hello,
    serves,
)
from lambda_split.wire.tensor_format import TENSOR_FORMATS
from tests.wire.pictures.examples import FP32, GEOMETRY, NF4_CHANNEL, NF4_DELTA

HELLO = PictureHello(
    protocol=1,
    fingerprint="00112233",
    split="whole",
    formats=("nf4-delta", "nf4-channel", "fp32"),
    latents=15,
    context=8,
    steps=3,
    witnesses={"w.1": "aabbccdd"},
)
OFFER = PictureOffer(
    fingerprint="00112233",
    geometry=GEOMETRY,
    max_latents=15,
    max_context=8,
    witnesses={"w.1": "aabbccdd", "w.2": "01234567"},
)
ACCEPTED = AcceptedPictures("whole", NF4_DELTA, max_latents=15, max_context=8, max_steps=3)
SHALLOW = dataclasses.replace(GEOMETRY, deep=None)


@pytest.mark.parametrize(
    ("changes", "offer", "accepted"),
    [
        ({}, {}, {}),
        ({}, {"geometry": SHALLOW}, {}),
        ({}, {"max_latents": 100, "max_context": 100}, {}),
        ({"latents": 1}, {}, {"max_latents": 1}),
        ({"context": 1}, {}, {"max_context": 1}),
        ({"steps": 1}, {}, {"max_steps": 1}),
        ({"steps": 1000}, {}, {"max_steps": 1000}),
        ({"resumed_step": 2}, {}, {"resumed_step": 2}),
        ({"resumed_step": 2**32 - 1}, {}, {"resumed_step": 3}),
        ({"formats": ("nf9", "fp32", "nf4")}, {}, {"format": FP32}),
        ({"split": "deep"}, {}, {"split": "deep", "format": NF4_CHANNEL}),
        ({"witnesses": {}}, {}, {}),
        ({"witnesses": {"w.0": "00000000"}}, {}, {}),
    ],
)
def test_a_hello_that_fits_is_accepted(changes, offer, accepted):
    hello = msgspec.structs.replace(HELLO, **changes)
    outcome = accept_picture_hello(hello, dataclasses.replace(OFFER, **offer))
    assert outcome == dataclasses.replace(ACCEPTED, **accepted)


KNOWN = "those of docs/protocol-images.md"


@pytest.mark.parametrize(
    ("changes", "offer", "error", "fields"),
    [
        ({"protocol": 0}, {}, VersionRefused, {"asked": 0, "served": 1}),
        ({"protocol": 2}, {}, VersionRefused, {"asked": 2, "served": 1}),
        (
            {"fingerprint": "99999999"},
            {},
            FingerprintRefused,
            {"asked": "99999999", "served": "00112233", "what": "fingerprint"},
        ),
        (
            {"witnesses": {"w.0": "00000000", "w.2": "76543210"}},
            {},
            FingerprintRefused,
            {"asked": "76543210", "served": "01234567", "what": "tensor w.2"},
        ),
        (
            {"split": "deep"},
            {"geometry": SHALLOW},
            DenoiserSplitRefused,
            {"asked": "deep", "served": "whole"},
        ),
        ({"formats": ()}, {}, CodecRefused, {"asked": "none", "served": KNOWN}),
        (
            {"formats": ("nf9", "fp32-delta")},
            {},
            CodecRefused,
            {"asked": "nf9, fp32-delta", "served": KNOWN},
        ),
        (
            {"formats": ("nf4-delta",), "split": "deep"},
            {},
            CodecRefused,
            {"asked": "nf4-delta", "served": KNOWN},
        ),
        (
            {"latents": 0},
            {},
            PictureRefused,
            {"what": "latent positions", "asked": 0, "limit": 15},
        ),
        (
            {"latents": 16},
            {},
            PictureRefused,
            {"what": "latent positions", "asked": 16, "limit": 15},
        ),
        (
            {"context": 0},
            {},
            PictureRefused,
            {"what": "positions of conditioning", "asked": 0, "limit": 8},
        ),
        (
            {"context": 9},
            {},
            PictureRefused,
            {"what": "positions of conditioning", "asked": 9, "limit": 8},
        ),
        ({"steps": 0}, {}, PictureRefused, {"what": "steps", "asked": 0, "limit": 1000}),
        ({"steps": 1001}, {}, PictureRefused, {"what": "steps", "asked": 1001, "limit": 1000}),
    ],
)
def test_a_hello_that_does_not_fit_is_refused(changes, offer, error, fields):
    hello = msgspec.structs.replace(HELLO, **changes)
    with pytest.raises(error) as caught:
        accept_picture_hello(hello, dataclasses.replace(OFFER, **offer))
    assert type(caught.value) is error
    assert caught.value.wire_fields() == fields


def test_the_first_thing_that_does_not_fit_is_told():
    changes = [{"latents": 0}, {"formats": ()}, {"fingerprint": "99999999"}, {"protocol": 2}]
    told = [PictureRefused, CodecRefused, FingerprintRefused, VersionRefused]
    hello = HELLO
    for change, error in zip(changes, told, strict=True):
        hello = msgspec.structs.replace(hello, **change)
        with pytest.raises(error):
            accept_picture_hello(hello, OFFER)


def test_differences_are_of_the_whole_split_only():
    assert all(serves(form, "whole") for form in TENSOR_FORMATS)
    assert all(serves(form, "deep") is not form.delta for form in TENSOR_FORMATS)

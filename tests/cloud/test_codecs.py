"""The torch codecs write and read the same bytes as the numpy ones, and as the golden vectors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cloud import codecs
from lambda_split.errors import FrameLengthMismatch, NonFinite, WireError
from lambda_split.wire import codecs as reference
from lambda_split.wire.frames import Codec
from tests.vectors.reading import named, read_vectors

VECTORS = read_vectors("codecs.json")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

# Bit patterns where roundings, ranges and special values meet, with either sign.
_LANDMARKS = [
    0x00000000, 0x00000001, 0x007FFFFF, 0x00800000, 0x33000000, 0x33000001, 0x32FFFFFF, 0x387FC000,
    0x387FE000, 0x3F800000, 0x3F801000, 0x3F803000, 0x3F801001, 0x3F808000, 0x3F818000, 0x477FE000,
    0x477FE001, 0x477FEFFF, 0x477FF000, 0x47800000, 0x7F7F7FFF, 0x7F7F8000, 0x7F7FEFFF, 0x7F7FF000,
    0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF,
]  # fmt: skip
_BITS = st.one_of(
    st.integers(0, 0xFFFFFFFF),
    st.sampled_from(_LANDMARKS + [bits | 0x80000000 for bits in _LANDMARKS]),
    st.builds(lambda high, low: high << 16 | low, st.integers(0, 0xFFFF), st.just(0x8000)),
    st.builds(lambda high, low: high << 13 | low, st.integers(0, 0x7FFFF), st.just(0x1000)),
    st.integers(0x3F000000, 0x48000000),
)
HIDDEN = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6).flatmap(
    lambda shape: hnp.arrays(np.uint32, shape, elements=_BITS).map(lambda a: a.view(np.float32))
)


def outcome(function, *args, **kwargs):
    """What a function gives, or the error that it raises with its facts."""
    try:
        return function(*args, **kwargs)
    except WireError as error:
        return type(error), error.wire_fields()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("codec", list(Codec), ids=lambda codec: codec.label)
@settings(max_examples=400, deadline=None)
@given(hidden=HIDDEN)
def test_both_write_the_same_bytes(codec, device, hidden):
    tensor = torch.from_numpy(hidden.copy()).to(device)
    assert outcome(codecs.encode, tensor, codec) == outcome(reference.encode, hidden, codec)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("codec", list(Codec), ids=lambda codec: codec.label)
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_both_read_the_same_values(codec, device, data):
    tokens, width = data.draw(st.tuples(st.integers(0, 4), st.integers(1, 4)))
    scaled = data.draw(st.booleans())
    size = tokens * width * codec.value_bytes + (tokens if scaled else 0)
    payload = data.draw(st.binary(min_size=size, max_size=size))
    wanted = outcome(reference.decode, payload, codec, tokens, width, scaled=scaled)
    found = outcome(codecs.decode, payload, codec, tokens, width, scaled=scaled, device=device)
    if isinstance(wanted, np.ndarray):
        assert isinstance(found, torch.Tensor)
        assert found.shape == wanted.shape
        assert found.cpu().numpy().tobytes() == wanted.tobytes()
    else:
        assert found == wanted


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("codec", list(Codec), ids=lambda codec: codec.label)
def test_half_precision_tensors_are_written_as_their_float32_values(codec, dtype):
    hidden = (torch.randn(5, 33, generator=torch.manual_seed(0)) * 300).to(dtype)
    encoded = codecs.encode(hidden, codec)
    assert encoded == reference.encode(hidden.float().numpy(), codec)
    back = codecs.decode(encoded.payload, codec, 5, 33, scaled=encoded.scaled, dtype=dtype)
    assert back.dtype == dtype
    if codec is Codec.FP32 or codec.label[:2] == str(dtype)[6:8]:
        assert torch.equal(back, hidden)


def test_a_tensor_that_is_not_contiguous_is_written_row_by_row():
    hidden = torch.arange(12.0).reshape(3, 4).T
    encoded = codecs.encode(hidden, Codec.BF16)
    assert encoded == reference.encode(np.ascontiguousarray(hidden.numpy()), Codec.BF16)


def test_what_the_dtype_cannot_hold_is_rejected():
    payload = np.array([[70000.0]], np.float32).tobytes()
    assert codecs.decode(payload, Codec.FP32, 1, 1, dtype=torch.bfloat16).item() == 70144.0
    with pytest.raises(NonFinite):
        codecs.decode(payload, Codec.FP32, 1, 1, dtype=torch.float16)


def test_a_payload_is_not_changed_through_the_tensor_read_from_it():
    payload = bytes(16)
    codecs.decode(payload, Codec.FP32, 1, 4).add_(1)
    assert payload == bytes(16)


def test_a_payload_of_another_length_is_rejected():
    with pytest.raises(FrameLengthMismatch):
        codecs.decode(bytes(15), Codec.FP32, 1, 4)


def shaped(vector, values):
    floats = np.frombuffer(bytes.fromhex(values), "<f4").astype(np.float32)
    return torch.from_numpy(floats.reshape(vector["tokens"], vector["width"]))


def decoded(vector, device):
    return codecs.decode(
        bytes.fromhex(vector["payload"]),
        Codec.from_label(vector["codec"]),
        vector["tokens"],
        vector["width"],
        scaled=vector["scaled"],
        device=device,
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("vector", **named(VECTORS["encode"]))
def test_golden_values_become_the_payload(vector, device):
    hidden = shaped(vector, vector["values"]).to(device)
    encoded = codecs.encode(hidden, Codec.from_label(vector["codec"]))
    assert encoded.payload.hex() == vector["payload"]
    assert encoded.scaled == vector["scaled"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("vector", **named(VECTORS["encode"] + VECTORS["decode"]))
def test_golden_payloads_become_values(vector, device):
    assert decoded(vector, device).cpu().numpy().tobytes().hex() == vector["decoded"]


@pytest.mark.parametrize("vector", **named(VECTORS["encode_rejected"]))
def test_golden_values_that_no_payload_can_hold_are_rejected(vector):
    with pytest.raises(WireError) as caught:
        codecs.encode(shaped(vector, vector["values"]), Codec.from_label(vector["codec"]))
    assert caught.value.code == vector["error"]


@pytest.mark.parametrize("vector", **named(VECTORS["decode_rejected"]))
def test_golden_payloads_without_meaning_are_rejected(vector):
    with pytest.raises(WireError) as caught:
        decoded(vector, "cpu")
    assert caught.value.code == vector["error"]

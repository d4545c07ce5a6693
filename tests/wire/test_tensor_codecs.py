"""What the tensor codecs keep of a value, whatever the value, and the bytes that they write."""

import pathlib
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lambda_split.errors import CodecOverflow, FrameLengthMismatch, NonFinite, WireError
from lambda_split.wire.bit_packing import pack_codes
from lambda_split.wire.float8 import E4M3, E5M2, decode_float8
from lambda_split.wire.frames import Codec
from lambda_split.wire.normal_float import normal_levels
from lambda_split.wire.tensor_codecs import decode, encode, payload_bytes
from lambda_split.wire.tensor_format import GROUP_BYTES, TENSOR_FORMATS, Base, TensorFormat
from tests.vectors.reading import named, read_vectors, written_again

VECTORS = read_vectors("tensor_codecs.json")
FLOAT32_MAX = float(np.finfo(np.float32).max)
LATENTS = (1, 4, 128, 128)
SHAPES = hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=5)
GROUPED = [form for form in TENSOR_FORMATS if form.base.grouped and not form.delta]
UNIFORM = [form for form in GROUPED if not form.base.normal]
NORMAL = [form for form in GROUPED if form.base.normal]


def form_of(label):
    form = TensorFormat.from_label(label)
    assert form is not None
    return form


def tensors(largest, shapes=SHAPES):
    elements = st.floats(-largest, largest, width=32, allow_subnormal=True)
    return shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=elements))


def through(values, form, reference=None):
    payload = encode(values, form, reference)
    assert len(payload) == payload_bytes(form, values.shape)
    return decode(payload, form, values.shape, reference)


def grouped(values, form):
    """(groups, values of each) in binary64."""
    groups = values.shape[0] * (values.shape[1] if form.per_channel else 1)
    return values.astype(np.float64).reshape(groups, -1)


def decibels(values, found):
    error = np.mean((found.astype(np.float64) - values) ** 2)
    return 10 * np.log10(np.mean((values - values.mean(dtype=np.float64)) ** 2) / error)


def by_label(forms):
    return {"argvalues": forms, "ids": [form.label for form in forms]}


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# --- names, codes, sizes ------------------------------------------------------------------------


def test_labels_and_codes_are_those_of_the_vectors():
    assert {form.label: form.code for form in TENSOR_FORMATS} == VECTORS["formats"]


def test_codes_lead_back_and_all_others_nowhere():
    found = [TensorFormat.from_code(code) for code in range(-1, 300)]
    assert sorted(form.code for form in found if form) == sorted(VECTORS["formats"].values())
    assert all(form.code == code - 1 for code, form in enumerate(found) if form)
    assert all(TensorFormat.from_label(form.label) is form for form in TENSOR_FORMATS)


@pytest.mark.parametrize(
    "label",
    ["", "int0", "int9", "nf", "nf4-delta-channel", "fp16-channel", "fp32-delta", "FP16", "int4 "],
)
def test_labels_without_a_format(label):
    assert TensorFormat.from_label(label) is None


@pytest.mark.parametrize("arguments", [(Base.FP16, True), (Base.FP32, False, True)])
def test_formats_without_a_meaning_cannot_be_made(arguments):
    with pytest.raises(ValueError, match="no such format"):
        TensorFormat(*arguments)


def test_the_first_codes_are_those_of_hidden_states():
    for codec in Codec:
        form = TensorFormat.from_code(codec)
        assert form is not None
        assert (form.label, form.base.bits) == (codec.label, 8 * codec.value_bytes)


@pytest.mark.parametrize(
    ("label", "size"),
    [
        ("fp32", 262_144),
        ("fp16", 131_072),
        ("bf16-delta", 131_072),
        ("fp8-e4m3", 65_536),
        ("fp8-e5m2", 65_536),
        ("int8", 65_536 + 8),
        ("int7", 57_344 + 8),
        ("int6", 49_152 + 8),
        ("int5", 40_960 + 8),
        ("int4", 32_768 + 8),
        ("int4-channel", 32_768 + 4 * 8),
        ("nf4", 32_768 + 8),
        ("nf4-channel-delta", 32_768 + 4 * 8),
        ("nf3", 24_576 + 8),
        ("int2", 16_384 + 8),
        ("int1", 8_192 + 8),
    ],
)
def test_sizes_for_a_picture_of_1024_pixels(label, size):
    assert payload_bytes(form_of(label), LATENTS) == size
    assert len(encode(np.ones(LATENTS, np.float32), form_of(label))) == size


def test_sizes_of_what_is_too_large_to_allocate():
    huge = (2**20, 2**20, 2**20)
    assert payload_bytes(form_of("int3"), huge) == 2**60 * 3 // 8 + 2**20 * GROUP_BYTES


# --- the golden vectors -------------------------------------------------------------------------


def test_the_committed_file_is_what_the_script_writes(tmp_path):
    names = ("tensor_codecs.json",)
    written, committed = written_again("make_tensor_vectors.py", names, tmp_path)
    assert written == committed


def floats(vector, field):
    if vector[field] is None:
        return None
    values = np.frombuffer(bytes.fromhex(vector[field]), "<f4").astype(np.float32)
    return values.reshape(vector["shape"])


@pytest.mark.parametrize("bits", range(1, 9))
def test_normal_levels_are_those_of_the_vectors(bits):
    assert normal_levels(bits).astype("<f4").tobytes().hex() == VECTORS["normal_levels"][str(bits)]


@pytest.mark.parametrize(("label", "layout"), [("fp8-e4m3", E4M3), ("fp8-e5m2", E5M2)])
def test_float8_values_are_those_of_the_vectors(label, layout):
    values = decode_float8(np.arange(256, dtype=np.uint8), layout)
    expected = np.frombuffer(bytes.fromhex(VECTORS["float8_values"][label]), "<f4")
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("vector", **named(VECTORS["encode"]))
def test_values_become_the_payload(vector):
    form, values = form_of(vector["codec"]), floats(vector, "values")
    assert encode(values, form, floats(vector, "reference")).hex() == vector["payload"]


@pytest.mark.parametrize("vector", **named(VECTORS["encode"] + VECTORS["decode"]))
def test_the_payload_becomes_values(vector):
    found = decode(
        bytes.fromhex(vector["payload"]),
        form_of(vector["codec"]),
        vector["shape"],
        floats(vector, "reference"),
    )
    assert (found.dtype, list(found.shape)) == (np.float32, vector["shape"])
    # Bytes, not values: -0.0 and subnormals count.
    assert found.astype("<f4").tobytes().hex() == vector["decoded"]


@pytest.mark.parametrize("vector", **named(VECTORS["encode_rejected"]))
def test_values_that_no_payload_can_hold_are_rejected(vector):
    form, values = form_of(vector["codec"]), floats(vector, "values")
    with pytest.raises(WireError) as caught:
        encode(values, form, floats(vector, "reference"))
    assert caught.value.code == vector["error"]
    facts = {"non-finite": {"where": "outgoing"}, "codec-overflow": {"codec": form.label}}
    assert caught.value.wire_fields() == facts[vector["error"]]


@pytest.mark.parametrize("vector", **named(VECTORS["decode_rejected"]))
def test_payloads_without_meaning_are_rejected(vector):
    with pytest.raises(WireError) as caught:
        decode(
            bytes.fromhex(vector["payload"]),
            form_of(vector["codec"]),
            vector["shape"],
            floats(vector, "reference"),
        )
    assert caught.value.code == vector["error"]


# --- every format -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", **by_label(TENSOR_FORMATS))
@pytest.mark.parametrize("change", [-1, 1])
def test_another_length_is_rejected(form, change):
    shape = (2, 3, 5)
    expected = payload_bytes(form, shape)
    with pytest.raises(FrameLengthMismatch) as caught:
        decode(bytes(expected + change), form, shape)
    assert (caught.value.length, caught.value.expected) == (expected + change, expected)


@pytest.mark.parametrize("form", **by_label(TENSOR_FORMATS))
@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -0.75, 1e-40, -1e-45, 3.7])
def test_equal_values(form, value):
    values = np.full((2, 3, 5), value, np.float32)
    found = through(values, form)
    if form.base.grouped or form.base is Base.FP32:
        assert found.tobytes() == values.tobytes()
    else:  # one rounding, as for any value
        np.testing.assert_allclose(found, values, rtol=2**-3, atol=2**-17)
        assert (np.signbit(found) == np.signbit(values)).all()


@pytest.mark.parametrize("form", **by_label(TENSOR_FORMATS))
@pytest.mark.parametrize("shape", [(0, 4, 8, 8), (2, 0, 3), (1, 4, 0)])
def test_no_values_are_no_bytes(form, shape):
    values = np.empty(shape, np.float32)
    assert encode(values, form, values) == b""
    assert decode(b"", form, shape, values).shape == shape


@pytest.mark.parametrize("form", **by_label(TENSOR_FORMATS))
def test_what_is_read_is_the_reader_s_own(form):
    values = np.random.default_rng(1).normal(size=(2, 2, 4)).astype(np.float32)
    reference = np.zeros_like(values)
    payload = bytearray(encode(values, form, reference))
    before = bytes(payload)
    decode(payload, form, values.shape, reference)[:] = 1
    assert payload == before
    assert not reference.any()


@pytest.mark.parametrize("form", **by_label(TENSOR_FORMATS))
def test_the_layout_in_memory_does_not_matter(form):
    values = np.random.default_rng(2).normal(size=(2, 6, 5, 4)).astype(np.float32)
    strided = values[:, ::2].transpose(0, 1, 3, 2)
    assert encode(strided, form, strided * 0.5) == encode(strided.copy(), form, strided * 0.5)


@pytest.mark.parametrize("form", **by_label(TENSOR_FORMATS))
def test_a_reference_counts_for_differences_only(form):
    values = np.random.default_rng(3).normal(size=(1, 4, 8, 8)).astype(np.float32)
    reference = values + np.float32(0.1)
    alike = encode(values, form, reference) == encode(values, form)
    assert alike == (not form.delta)


@pytest.mark.parametrize("form", **by_label(GROUPED))
def test_images_and_channels_have_parameters_of_their_own(form):
    values = np.random.default_rng(4).normal(size=(2, 3, 16, 16)).astype(np.float32)
    loud = values * np.float32([1, 100])[:, None, None, None]
    if form.per_channel:
        loud[:, 1] *= 10
    found = through(loud, form)
    np.testing.assert_array_equal(found[0, 0], through(values, form)[0, 0])


# --- uniform ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", **by_label(UNIFORM))
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_uniform_errors_are_at_most_half_a_step(form, data):
    values = data.draw(st.sampled_from([1.0, 2.0**-135, FLOAT32_MAX]).flatmap(tensors))
    found = through(values, form)
    wide = grouped(values, form)
    low, high = wide.min(axis=1, keepdims=True), wide.max(axis=1, keepdims=True)
    step = (high - low) / (2**form.base.bits - 1)
    # And once more half a unit in the last place of float32.
    rounding = np.maximum(np.abs(low), np.abs(high)) * 2.0**-24 + 2.0**-150
    error = np.abs(grouped(found, form) - wide)
    assert (error <= step / 2 * (1 + 1e-9) + rounding).all()
    assert ((low <= grouped(found, form)) & (grouped(found, form) <= high)).all()


@pytest.mark.parametrize("form", **by_label(UNIFORM))
def test_the_ends_of_a_uniform_range_are_exact(form):
    values = np.array([[[-1e30, 1e-30]], [[0.1, 0.7]]], np.float32)
    np.testing.assert_array_equal(through(values, form), values)


# --- normal float -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", **by_label(NORMAL))
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_normal_errors_are_at_most_a_part_of_the_range(form, data):
    values = data.draw(st.sampled_from([1.0, 2.0**-100, 2.0**-142, FLOAT32_MAX]).flatmap(tensors))
    wide = grouped(values, form)
    error = np.abs(grouped(through(values, form), form) - wide)
    extent = np.ptp(wide, axis=1, keepdims=True)
    rounding = np.abs(wide).max(axis=1, keepdims=True) * 2.0**-22 + 8 * 2.0**-149
    assert (error <= extent * 1.001 + rounding).all()


# Lloyd and Max's optimum for a Gaussian, in decibels, by bits (Max, 1960; beyond 5 bits computed).
OPTIMUM = {1: 4.40, 2: 9.30, 3: 14.62, 4: 20.22, 5: 26.01, 6: 31.89, 7: 37.81, 8: 43.77}


@pytest.mark.parametrize("form", **by_label(NORMAL))
def test_gaussian_values_lose_little_more_than_they_must(form):
    values = np.random.default_rng(5).normal(0.3, 2.0, size=LATENTS).astype(np.float32)
    assert decibels(values, through(values, form)) > OPTIMUM[form.base.bits] - 0.25


def heavy_tails():
    random = np.random.default_rng(6)
    yield "laplacian", random.laplace(size=LATENTS)
    yield "student", random.standard_t(5, size=LATENTS)
    yield "varying", random.normal(size=LATENTS) * np.exp(random.normal(size=(1, 4, 128, 1)))


@pytest.mark.parametrize("form", **by_label(NORMAL))
@pytest.mark.parametrize(
    ("kind", "values"), list(heavy_tails()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_no_other_scale_is_much_better(form, kind, values):
    """Against mean and every scale, each value at its nearest level."""
    values = values.astype(np.float32)
    found = decibels(values, through(values, form))
    levels = normal_levels(form.base.bits).astype(np.float64)
    middles = (levels[1:] + levels[:-1]) / 2
    wide = grouped(values, form)
    means, deviations = wide.mean(axis=1, keepdims=True), wide.std(axis=1, keepdims=True)
    best = []
    for factor in np.geomspace(0.4, 12, 40):
        scaled = (wide - means) / (deviations * factor)
        near = means + deviations * factor * levels[np.searchsorted(middles, scaled)]
        best.append(((near - wide) ** 2).sum(axis=1))
    least = np.min(best, axis=0).sum() / wide.size
    assert found > 10 * np.log10(values.var(dtype=np.float64) / least) - 0.35


@pytest.mark.parametrize("exponent", [-140, -100, -49, -51, 49, 51, 100, 126])
@pytest.mark.parametrize("label", ["nf1", "nf4", "nf4-channel", "nf8"])
def test_powers_of_two_change_nothing(label, exponent):
    form = form_of(label)
    values = np.random.default_rng(7).integers(-256, 257, size=(1, 2, 32, 32)) / np.float32(256)
    values = values.astype(np.float32)
    expected = np.ldexp(through(values, form).astype(np.float64), exponent)
    found = through(np.ldexp(values, exponent), form)  # exact, subnormal or not
    # Subnormal parameters and results are rounded to their step; levels reach to 5.
    assert np.abs(found - expected).max() <= 8 * 2.0**-149 + 2.0 ** (exponent - 24)


def test_the_whole_range_of_float32_keeps_its_quality():
    values = np.random.default_rng(8).uniform(-1, 1, size=LATENTS).astype(np.float32)
    values *= np.float32(FLOAT32_MAX)
    assert decibels(values.astype(np.float64), through(values, form_of("nf8"))) > 40


@pytest.mark.parametrize("label", ["nf1", "nf2", "nf4", "nf8"])
def test_the_last_steps_below_the_end_of_float32(label):
    end = np.float32(FLOAT32_MAX)
    values = np.array([[end] * 7 + [np.nextafter(end, np.float32(0))]], np.float32)
    np.testing.assert_allclose(through(values, form_of(label)), values, rtol=2**-22)


def test_many_small_groups():
    form = form_of("nf4-channel")
    values = np.random.default_rng(9).normal(size=(3, 5000, 4)).astype(np.float32)
    found = through(values, form)
    np.testing.assert_array_equal(found[1:2, 4000:4001], through(values[1:2, 4000:4001], form))


# --- differences --------------------------------------------------------------------------------

DIFFERENCES = [form for form in TENSOR_FORMATS if form.delta]


@pytest.mark.parametrize("form", **by_label(DIFFERENCES))
def test_a_difference_is_coded_and_added(form):
    random = np.random.default_rng(10)
    values = random.normal(size=(2, 4, 16, 16)).astype(np.float32)
    reference = values + random.normal(0, 0.1, size=values.shape).astype(np.float32)
    plain = TensorFormat(form.base, form.per_channel)
    difference = values - reference
    assert encode(values, form, reference) == encode(difference, plain)
    np.testing.assert_array_equal(
        through(values, form, reference), reference + through(difference, plain)
    )
    assert encode(values, form) == encode(values, plain)


def test_nearly_equal_steps_cost_little():
    """The reason for differences: at 4 bits, 20 dB more for a tenth of the change."""
    random = np.random.default_rng(11)
    values = random.normal(size=LATENTS).astype(np.float32)
    reference = values + random.normal(0, 0.1, size=LATENTS).astype(np.float32)
    nf4 = decibels(values, through(values, form_of("nf4-delta"), reference))
    int5 = decibels(values, through(values, form_of("int5")))
    assert nf4 > 39.5
    assert int5 < 22.5


@pytest.mark.parametrize("form", **by_label(DIFFERENCES))
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_extreme_differences_are_finite_or_refused(form, data):
    shape = data.draw(SHAPES)
    extremes = st.sampled_from([0.0, 1.0, 1e30, 1.5e38, -3e38, FLOAT32_MAX, -FLOAT32_MAX])
    values, reference = (
        data.draw(hnp.arrays(np.float32, shape, elements=extremes)) for _ in range(2)
    )
    try:
        payload = encode(values, form, reference)
    except CodecOverflow:
        return
    assert np.isfinite(decode(payload, form, shape, reference)).all()


@pytest.mark.parametrize("form", **by_label(DIFFERENCES))
def test_non_finite_values_are_not_hidden_by_a_reference(form):
    values, reference = np.full((1, 2), np.inf, np.float32), np.full((1, 2), 1.0, np.float32)
    with pytest.raises(NonFinite):
        encode(values, form, reference)


# --- the document -------------------------------------------------------------------------------


def test_the_protocol_s_page_says_what_the_code_does():
    page = pathlib.Path(__file__).parents[2] / "docs" / "protocol-images.md"
    document = page.read_text(encoding="utf-8")
    for base in Base:
        if not base.grouped:
            assert f"| `{base.label}` | {base.value} |" in document
    assert f"| `int1` … `int8` | {Base.INT1.value} … {Base.INT8.value} |" in document
    assert f"| `nf1` … `nf8` | {Base.NF1.value} … {Base.NF8.value} |" in document
    example = form_of("nf4-channel-delta")
    assert f"`{example.label}` is 19 + 64 + 128 = {example.code}." in document
    for bits in (1, 2):
        levels = ", ".join(f"`{value:08x}`" for value in normal_levels(bits).view(np.uint32))
        assert f"| {bits} | {levels} |" in document
    packed = pack_codes(np.array([1, 2, 3, 4, 5, 6, 7, 0], np.uint8), 3).hex(" ")
    assert f"codes 1, 2, 3, 4, 5, 6, 7, 0 are `{packed}`." in document

"""What audits attack is what a real device and a real service send, tapped on their socket."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from audit.pictures import attack_prompts, attack_whole, read_messages
from audit.pictures.asking import Plan, ask
from audit.pictures.sessions import deep_sessions, whole_sessions
from audit.pictures.tapped import watch
from edge_runtime import ImageGenerator, PictureSpec
from export import ImageExportSettings, export_image_bundle
from lambda_split.image_bundle import load_image_bundle
from lambda_split.wire.frames import HEADER, HEADER_BYTES
from lambda_split.wire.pictures.frames import parse_picture_frame
from lambda_split.wire.tensor_codecs import decode
from lambda_split.wire.tensor_format import payload_bytes
from tests.audit.pictures.some_model import form_of
from tests.certificates import Issuer
from tests.servers import serving
from tests.tapping_proxy import binary_messages, tapping_proxy

PROMPT = "a small red cat"
PLAN = Plan((PROMPT,), (5,), steps=4, guidance=7.5)
SPEC = PictureSpec(steps=4, guidance=7.5, seed=5)


@pytest.fixture(scope="module")
def bundle_of(sdxl, pipelines, tmp_path_factory) -> Callable[[str], pathlib.Path]:
    """The bundle of a split, in fp32, exported when it is first asked for."""
    place = tmp_path_factory.mktemp("bundles")

    @cache
    def make(split: str) -> pathlib.Path:
        settings = ImageExportSettings(split=split, weights="fp32", calibration_steps=0)
        export_image_bundle(str(pipelines / "sdxl"), place / split, settings)
        return place / split

    return make


@pytest.fixture(scope="module")
def server(sdxl, pipelines):
    with serving(str(pipelines / "sdxl")) as running:
        yield running


def painted(bundle: pathlib.Path, port: int, label: str):
    """A picture by a real device, and the messages that passed."""
    with tapping_proxy(port) as tapped:
        url = f"ws://127.0.0.1:{tapped.port}"
        with ImageGenerator.open(bundle, url, format=label) as device:
            result = device.generate(PROMPT, spec=SPEC)
    up, down = binary_messages(tapped.up, up=True), binary_messages(tapped.down, up=False)
    return result, up, down


def head_of(message: bytes) -> tuple[int, ...]:
    """The header without the trunk's compute time."""
    *before, _, length = HEADER.unpack_from(message)
    return (*before, length)


def near(found: bytes, wanted: bytes, label: str, shape: tuple[int, ...]) -> None:
    """Payloads that differ by no more than ONNX and PyTorch round."""
    form = form_of(label)
    one, other = (decode(payload, form, shape) for payload in (found, wanted))
    assert np.abs(one - other).max() <= 5e-3 * np.abs(other).max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "label"), [("whole", "fp16"), ("whole", "fp32"), ("deep", "fp16"), ("deep", "fp32")]
)
def test_the_messages_are_those_that_are_audited(sdxl, bundle_of, server, split, label) -> None:
    result, up, down = painted(bundle_of(split), server.port, label)
    asked = ask(sdxl, PLAN, form_of(label))
    make = whole_sessions if split == "whole" else deep_sessions
    (own,) = make(sdxl, asked, form_of(label))
    assert [head_of(one) for one in up] == [head_of(one) for one in own.up]
    assert [head_of(one) for one in down] == [head_of(one) for one in own.down]
    first, ours = (parse_picture_frame(one, max_payload=len(one)) for one in (up[0], own.up[0]))
    end = first.settings_bytes
    assert bytes(first.payload[:end]) == bytes(ours.payload[:end])
    tokens, width = asked[0].conditioning.context.shape[1:]
    sent = "fp32" if label == "fp32" else "fp16"
    size = end + payload_bytes(form_of(sent), (1, tokens, width))
    near(first.payload[end:size], ours.payload[end:size], sent, (1, tokens, width))
    near(first.payload[size:], ours.payload[size:], sent, (1, sdxl.geometry.pooled_width))
    deep = sdxl.geometry.deep
    found, wanted = up[1:] + down[1:], own.up[1:] + own.down[1:]
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        payloads = one[HEADER_BYTES:], other[HEADER_BYTES:]
        if split == "whole" and number < PLAN.steps:
            assert payloads == (b"", b"")
        elif split == "whole":
            near(*payloads, label, (1, *sdxl.shape))
        else:
            channels = deep.input_channels if number < PLAN.steps else deep.output_channels
            near(*payloads, label, (2, channels, 8, 8))
    np.testing.assert_allclose(own.latents, result.latents, atol=0.05)


@pytest.mark.slow
def test_a_tapper_without_tls_has_the_prompt_and_the_picture(sdxl, bundle_of, server) -> None:
    result, up, down = painted(bundle_of("whole"), server.port, "nf4-delta")
    seen = read_messages(up, down, sdxl.geometry)
    found = attack_prompts(sdxl, [one.context for one in seen], [PROMPT])
    assert found.texts == (PROMPT,)
    assert np.array_equal(watch(seen[0], PLAN.steps), result.latents)  # to the bit
    (attack,) = attack_whole(sdxl, seen, result.images, PLAN.steps, samples=1)
    # By another decoder than the device's graph: one level at most.
    assert np.abs(attack.pictures.astype(int) - result.images).max() <= 1


@pytest.mark.slow
def test_a_bundles_own_encoders_can_be_asked(sdxl, bundle_of) -> None:
    from edge_runtime.graph_session import RuntimeSettings
    from edge_runtime.pictures.prompts import load_prompt_encoders

    encoders = load_prompt_encoders(load_image_bundle(bundle_of("whole")), RuntimeSettings())
    (own,) = ask(sdxl, PLAN, form_of("fp16"))
    (device,) = ask(sdxl, PLAN, form_of("fp16"), encoder=encoders.encode)
    assert device.settings == own.settings
    np.testing.assert_allclose(device.conditioning.context, own.conditioning.context, atol=5e-3)


@pytest.mark.slow
def test_a_tapper_of_tls_has_sizes_and_nothing_else(sdxl, pipelines, bundle_of, tmp_path) -> None:
    issuer = Issuer(tmp_path)
    certificate = issuer.issue("server")
    tls = ("--tls-cert", str(certificate.cert), "--tls-key", str(certificate.key))
    own = whole_sessions(sdxl, ask(sdxl, PLAN, form_of("fp16")), form_of("fp16"))[0]
    with serving(str(pipelines / "sdxl"), *tls) as server, tapping_proxy(server.port) as tapped:
        url = f"wss://127.0.0.1:{tapped.port}"
        with ImageGenerator.open(
            bundle_of("whole"), url, ca_file=issuer.ca_file, format="fp16"
        ) as device:
            device.generate(PROMPT, spec=SPEC)
    plain = sum(map(len, own.up)) + sum(map(len, own.down))
    assert len(tapped.up) + len(tapped.down) > plain
    settings = own.up[0][HEADER_BYTES : HEADER_BYTES + 40]
    for passed in (bytes(tapped.up), bytes(tapped.down)):
        assert settings not in passed
        assert b"Upgrade: websocket" not in passed
        assert passed[:1] == b"\x16"  # a TLS handshake, and no request that could be read
        with pytest.raises(ValueError, match="not found"):
            binary_messages(passed, up=True)

"""Pictures whose denoiser begins and ends on the device, over a real socket, against diffusers."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from edge_runtime import ImageGenerator, PictureSpec
from lambda_split.errors import UsageError
from tests.cutting_proxy import cutting_proxy
from tests.end_to_end.paintings import (
    RETRY,
    Prepared,
    psnr,
    servers_of,
    spec_of,
    two_users_get_what_each_gets_alone,
)
from tests.servers import TrunkServer
from tests.tiny_pipelines import save_tiny_pipeline

# Decibels that a format's or a bundle's noise may cost tiny random models over 4 steps.
FORMATS = {
    "fp16": 60,
    "fp8-e4m3": 25,
    "int8": 25,
    "int8-channel": 30,
    "nf8-channel": 30,
    "int4-channel": 10,
}
INT8_BUNDLE = 20


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Callable[..., Prepared]:
    from export import ImageExportSettings, export_image_bundle

    pipelines: dict[str, tuple[pathlib.Path, object]] = {}
    made: dict[tuple[str, str], Prepared] = {}

    def prepare(name: str, weights: str = "fp32") -> Prepared:
        if name not in pipelines:
            folder = tmp_path_factory.mktemp("deep") / name
            pipelines[name] = (folder, save_tiny_pipeline(name, folder))
        if (name, weights) not in made:
            folder, pipeline = pipelines[name]
            bundle = folder.parent / f"bundle-{weights}"
            settings = ImageExportSettings(split="deep", weights=weights, calibration_steps=4)
            export_image_bundle(str(folder), bundle, settings)
            made[name, weights] = Prepared(folder, bundle, pipeline)
        return made[name, weights]

    return prepare


@pytest.fixture(scope="module")
def served(prepared):
    yield from servers_of(prepared)


def _shape(whole: Prepared, spec: PictureSpec) -> tuple[int, int, int]:
    factor = whole.pipeline.vae_scale_factor
    return 4, spec.height // factor, spec.width // factor


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "sdxl",
        "lcm",
        *(pytest.param(one, marks=pytest.mark.exhaustive) for one in ("turbo", "sd1", "sd2")),
    ],
)
def test_pictures_are_those_of_the_whole_pipeline(prepared, served, name, monkeypatch) -> None:
    whole, server = prepared(name), served(name)
    with ImageGenerator.open(whole.bundle, server.url, format="fp32") as painter:
        for changes in (
            {"steps": 1},
            {"steps": 4, "images": 2},
            {"steps": 25},
            {"steps": 4, "guidance": 1.0},
            {"steps": 4, "height": 40, "width": 56},  # 10 × 14 latents: not all halves are whole
            {"steps": 4, "height": 64, "width": 64, "negative": ""},
            {"steps": 6, "rescale": 0.7} if name in {"sdxl", "sd1"} else {"steps": 2},
        ):
            negative = changes.pop("negative", "dog")
            spec = spec_of(**changes)
            if spec.rescale:
                monkeypatch.setattr(
                    type(whole.pipeline), "guidance_rescale", property(lambda _: 0.7)
                )
            result = painter.generate("a red cat", negative_prompt=negative, spec=spec)
            shape = _shape(whole, spec)
            latents, pixels = whole.reference("a red cat", negative, spec, shape, monkeypatch)
            assert psnr(result.latents, latents) >= 60
            assert np.abs(result.images.astype(int) - pixels).max() <= 1
            assert result.stats.blocks_s > 0
            monkeypatch.undo()


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["euler", "euler-ancestral", "ddim", "dpm++2m", "lcm"])
def test_each_solver_steps_on_the_device(prepared, served, solver, monkeypatch) -> None:
    whole, server = prepared("sdxl"), served("sdxl")
    with ImageGenerator.open(whole.bundle, server.url, format="fp32") as painter:
        spec = spec_of(solver=solver, steps=4)
        result = painter.generate("a red cat", spec=spec)
        latents, _ = whole.reference("a red cat", "", spec, _shape(whole, spec), monkeypatch)
        assert psnr(result.latents, latents) >= 60


@pytest.mark.slow
def test_coarser_formats_and_weights_stay_near(prepared, served) -> None:
    whole, server = prepared("sdxl"), served("sdxl")

    def paint(bundle, form):
        with ImageGenerator.open(bundle, server.url, format=form) as painter:
            return painter.generate("a red cat", negative_prompt="dog", spec=spec_of())

    exact = paint(whole.bundle, "fp32")
    found = {form: paint(whole.bundle, form) for form in FORMATS}
    lost = {form: psnr(result.latents, exact.latents) for form, result in found.items()}
    assert all(lost[form] >= least for form, least in FORMATS.items()), lost
    assert found["int8"].stats.bytes_up < found["fp16"].stats.bytes_up
    integers = paint(prepared("sdxl", "int8").bundle, "fp16")
    assert psnr(integers.latents, exact.latents) >= INT8_BUNDLE


@pytest.mark.slow
def test_the_same_picture_although_the_server_is_killed(prepared) -> None:
    whole = prepared("sdxl")
    spec = spec_of(steps=12, solver="dpm++2m")
    server = TrunkServer(str(whole.folder))
    try:
        server.start()
        with ImageGenerator.open(
            whole.bundle, server.url, format="int8-channel", retry=RETRY
        ) as painter:
            wanted = painter.generate("a red cat", spec=spec)
            stream = painter.stream("a red cat", spec=spec)
            for step in stream:
                if step.number in {1, 5, 11}:
                    server.kill()
                    server.start()
        assert stream.result.stats.reconnects == 3
        assert np.array_equal(stream.result.latents, wanted.latents)
        assert np.array_equal(stream.result.images, wanted.images)
    finally:
        server.close()


@pytest.mark.slow
def test_the_same_picture_although_connections_are_cut(prepared, served) -> None:
    whole, server = prepared("sdxl"), served("sdxl")
    spec = spec_of(steps=25)
    with ImageGenerator.open(whole.bundle, server.url, format="nf8") as painter:
        wanted = painter.generate("a red cat", spec=spec)
    with (
        cutting_proxy(server.port, seed=3, low=100_000, high=200_000) as proxy,
        ImageGenerator.open(whole.bundle, proxy.url, format="nf8", retry=RETRY) as painter,
    ):
        proxy.arm(cuts=4)
        result = painter.generate("a red cat", spec=spec)
    assert result.stats.reconnects >= 1
    assert np.array_equal(result.latents, wanted.latents)


@pytest.mark.slow
def test_two_users_at_once_get_what_each_gets_alone(prepared, served) -> None:
    whole, server = prepared("sdxl"), served("sdxl")
    two_users_get_what_each_gets_alone(whole, server.url, steps=8)


@pytest.mark.slow
def test_what_the_deep_split_has_not_is_refused(prepared, served) -> None:
    whole, server = prepared("sdxl"), served("sdxl")
    for form in ("nf4-delta", "int8-channel-delta", "fp16-delta"):
        with pytest.raises(UsageError, match="differences"):
            ImageGenerator.open(whole.bundle, server.url, format=form)
    with ImageGenerator.open(whole.bundle, server.url) as painter:
        with pytest.raises(UsageError, match="drifts"):
            painter.stream("x", spec=spec_of(synchronized=False))
        with pytest.raises(UsageError, match="latents of shape"):
            painter.stream("x", spec=spec_of(), latents=np.zeros((1, 4, 3, 3), np.float32))


@pytest.mark.slow
def test_the_command_paints_with_a_deep_bundle_and_without_torch(
    prepared, served, tmp_path
) -> None:
    whole, server = prepared("sdxl"), served("sdxl")
    arguments = [
        "image",
        "--bundle",
        str(whole.bundle),
        "--url",
        server.url,
        "--prompt",
        "a red cat",
    ]
    arguments += ["--out", str(tmp_path / "a.png"), "--steps", "2", "--seed", "1", "--quiet"]
    program = f"""
import sys
for name in ("torch", "transformers", "diffusers", "safetensors", "onnx", "PIL"):
    sys.modules[name] = None
from lambda_split.cli import main
sys.exit(main({arguments!r}))
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")

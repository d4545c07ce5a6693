"""Pictures by device and trunk over a real socket, against diffusers in one process."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable

import diffusers
import numpy as np
import pytest
import torch

import lambda_split
from edge_runtime import ImageGenerator
from lambda_split.errors import BundleKindWrong, UsageError
from tests.cutting_proxy import cutting_proxy
from tests.end_to_end.paintings import (
    RETRY,
    SCHEDULERS,
    Prepared,
    psnr,
    servers_of,
    shape_of,
    spec_of,
    two_users_get_what_each_gets_alone,
)
from tests.servers import TrunkServer, serving
from tests.tiny_pipelines import save_tiny_pipeline

SHIPPED = pathlib.Path(lambda_split.__file__).parent / "demo_models" / "image"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Callable[[str], Prepared]:
    from export.command import add_arguments, run  # as the command line does

    made: dict[str, Prepared] = {}

    def prepare(name: str) -> Prepared:
        if name not in made:
            import argparse

            place = tmp_path_factory.mktemp("pictures")
            folder, bundle = place / name, place / "bundle"
            if name == "demo-image":
                folder = SHIPPED
                pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(
                    folder, dtype=torch.float32, add_watermarker=False
                )
            else:
                pipeline = save_tiny_pipeline(name, folder)
            parser = argparse.ArgumentParser()
            add_arguments(parser)
            arguments = [str(folder), "--out", str(bundle), "--weights", "fp32", "--quiet"]
            assert run(parser.parse_args(arguments)) == 0
            made[name] = Prepared(folder, bundle, pipeline)
        return made[name]

    return prepare


@pytest.fixture(scope="module")
def served(prepared):
    yield from servers_of(prepared)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sdxl", "turbo", "sd1", "sd2", "lcm", "demo-image"])
def test_pictures_are_those_of_the_whole_pipeline(prepared, served, name, monkeypatch) -> None:
    whole, server = prepared(name), served(name)
    shape = shape_of(whole)
    with ImageGenerator.open(whole.bundle, server.url, format="fp32") as painter:
        for changes in (
            {"steps": 1},
            {"steps": 4, "images": 2},
            {"steps": 25},
            {"steps": 4, "guidance": 1.0},
            {"steps": 6, "rescale": 0.7} if name in {"sdxl", "sd1"} else {"steps": 2},
        ):
            spec = spec_of(**changes)
            if spec.rescale:  # the pipeline's own argument of that name
                monkeypatch.setattr(
                    type(whole.pipeline), "guidance_rescale", property(lambda _: 0.7)
                )
            result = painter.generate("a red cat", negative_prompt="dog", spec=spec)
            latents, pixels = whole.reference("a red cat", "dog", spec, shape, monkeypatch)
            assert psnr(result.latents, latents) >= 60
            assert np.abs(result.images.astype(int) - pixels).max() <= 1
            if spec.rescale:
                monkeypatch.undo()


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("sdxl", marks=pytest.mark.exhaustive), "demo-image"])
@pytest.mark.parametrize("solver", SCHEDULERS)
def test_each_solver_is_diffusers_own(prepared, served, name, solver, monkeypatch) -> None:
    whole, server = prepared(name), served(name)
    with ImageGenerator.open(whole.bundle, server.url, format="fp32") as painter:
        for steps in (1, 4, 25):
            spec = spec_of(solver=solver, steps=steps)
            result = painter.generate("a red cat", spec=spec)
            latents, _ = whole.reference("a red cat", "", spec, shape_of(whole), monkeypatch)
            assert psnr(result.latents, latents) >= 60


@pytest.mark.slow
def test_the_same_picture_although_the_server_is_killed_ten_times(prepared) -> None:
    whole = prepared("sdxl")
    # Steps are asked for up to 8 ahead, whose answers may come before the server is killed: there
    # must still be one to ask for after the last time.
    spec = spec_of(steps=30, solver="dpm++2m")
    server = TrunkServer(str(whole.folder))
    try:
        server.start()
        with ImageGenerator.open(
            whole.bundle, server.url, format="nf4-delta", retry=RETRY
        ) as painter:
            wanted = painter.generate("a red cat", spec=spec)
            stream = painter.stream("a red cat", spec=spec)
            for step in stream:
                if step.number % 2 == 0 and step.number <= 20:
                    server.kill()
                    server.start()
        assert stream.result.stats.reconnects == 10
        assert np.array_equal(stream.result.latents, wanted.latents)
        assert np.array_equal(stream.result.images, wanted.images)
    finally:
        server.close()


@pytest.mark.slow
def test_the_same_picture_although_connections_are_cut(prepared, served) -> None:
    whole, server = prepared("sdxl"), served("sdxl")
    spec = spec_of(steps=25)
    with ImageGenerator.open(whole.bundle, server.url, format="int4-delta") as painter:
        wanted = painter.generate("a red cat", spec=spec)
    with (
        cutting_proxy(server.port, seed=3, low=20_000, high=40_000) as proxy,
        ImageGenerator.open(whole.bundle, proxy.url, format="int4-delta", retry=RETRY) as painter,
    ):
        proxy.arm(cuts=5)
        result = painter.generate("a red cat", spec=spec)
    assert np.array_equal(result.latents, wanted.latents)


@pytest.mark.slow
def test_two_users_at_once_get_what_each_gets_alone(prepared, served) -> None:
    whole, server = prepared("sdxl"), served("sdxl")
    two_users_get_what_each_gets_alone(whole, server.url, steps=12)


def test_steps_show_noise_and_cost_and_what_is_told_of_the_prompt(prepared, served) -> None:
    whole, server = prepared("sdxl"), served("sdxl")
    with ImageGenerator.open(whole.bundle, server.url, format="fp32") as painter:
        stream = painter.stream("a red cat", spec=spec_of(steps=3, seed=1), preview_every=2)
        steps, bytes_down = [], []
        for step in stream:
            steps.append(step)
            bytes_down.append(stream.stats.bytes_down)
    latents = stream.result.latents
    assert [step.number for step in steps] == [1, 2, 3]
    assert [step.preview is None for step in steps] == [True, False, True]
    assert all(step.noise.shape == latents.shape for step in steps)
    assert len({step.noise.tobytes() for step in steps}) == 3
    assert 0 < bytes_down[0] < bytes_down[-1] <= stream.stats.bytes_down
    assert stream.result.stats.bytes_down == stream.stats.bytes_down
    context, pooled = stream.conditioning
    assert context.ndim == 3
    assert len(context) == len(pooled) == 1  # an empty negative prompt is zeros to this model
    assert pooled.ndim == 2


def test_what_cannot_be_made_is_told(prepared, served, bundle) -> None:
    whole, server = prepared("sdxl"), served("sdxl")
    with ImageGenerator.open(whole.bundle, server.url) as painter:
        wrong = [
            {"height": 50},
            {"steps": 0},
            {"seed": -1},
            {"guidance": 1001.0},
            {"rescale": 2.0},
            {"images": 65},
            {"solver": "unknown"},
        ]
        for each in wrong:
            spec = spec_of(**each)
            with pytest.raises(UsageError):
                painter.stream("x", spec=spec)
        with pytest.raises(UsageError, match="latents of shape"):
            painter.stream("x", spec=spec_of(), latents=np.zeros((1, 4, 3, 3), np.float32))
    with pytest.raises(UsageError, match="closed"):
        painter.stream("x")
    with pytest.raises(UsageError, match="unknown format"):
        ImageGenerator.open(whole.bundle, server.url, format="int9")
    with pytest.raises(BundleKindWrong, match="generate"):
        ImageGenerator.open(bundle("llama").path, server.url)


def test_a_device_makes_pictures_without_torch(prepared, served, tmp_path) -> None:
    import subprocess

    whole, server = prepared("sdxl"), served("sdxl")
    program = f"""
import sys
for name in ("torch", "transformers", "diffusers", "safetensors", "onnx", "PIL"):
    sys.modules[name] = None
import lambda_split
from edge_runtime import ImageGenerator, PictureSpec, write_png
with ImageGenerator.open({str(whole.bundle)!r}, {server.url!r}) as painter:
    result = painter.generate("a red cat", spec=PictureSpec(steps=2, seed=1))
write_png({str(tmp_path / "a.png")!r}, result.images[0], {{"Prompt": "a red cat"}})
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_server_of_pictures_refuses_a_language_models_bundle(bundle, prepared) -> None:
    from edge_runtime import TextGenerator
    from lambda_split.errors import KindRefused

    with serving(str(prepared("sdxl").folder)) as server, pytest.raises(KindRefused):
        TextGenerator.open(bundle("llama"), server.url)

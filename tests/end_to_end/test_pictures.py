"""Pictures by device and trunk over a real socket, against diffusers in one process."""

from __future__ import annotations

import pathlib
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers import scheduling_euler_ancestral_discrete, scheduling_lcm

import lambda_split
from edge_runtime import ImageGenerator, PictureSpec, RetryPolicy
from lambda_split.diffusion.gaussian import START, standard_normal
from lambda_split.errors import ManifestInvalid, UsageError
from tests.cutting_proxy import cutting_proxy
from tests.servers import TrunkServer, serving
from tests.tiny_pipelines import save_tiny_pipeline

SHIPPED = pathlib.Path(lambda_split.__file__).parent / "demo_models" / "image"
HEIGHT, WIDTH = 48, 80
RETRY = RetryPolicy(give_up_after_s=60, max_delay_s=0.5)
SCHEDULERS = {
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler-ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}),
    # The class clips latents where the file says nothing of that; the model's own never does.
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False}),
    "dpm++2m": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": False}),
    "dpm++2m-karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "lcm": (diffusers.LCMScheduler, {}),
}


@dataclass(frozen=True)
class Prepared:
    folder: pathlib.Path
    bundle: pathlib.Path
    pipeline: diffusers.DiffusionPipeline

    def reference(self, prompt: str, negative: str, spec: PictureSpec, shape, monkeypatch):
        """Latents and pictures (images, height, width, 3) of the whole pipeline."""
        own = self.pipeline.scheduler
        if spec.solver is not None:
            kind, changes = SCHEDULERS[spec.solver]
            self.pipeline.scheduler = kind.from_config(own.config, **changes)
        drawn = iter(range(spec.steps + 1))

        def noise(wanted, *, generator=None, device=None, dtype=None, layout=None):
            fresh = standard_normal(spec.seed, next(drawn), range(spec.images), shape)
            return torch.from_numpy(fresh)

        for module in (scheduling_euler_ancestral_discrete, scheduling_lcm):
            monkeypatch.setattr(module, "randn_tensor", noise)
        start = torch.from_numpy(standard_normal(spec.seed, START, range(spec.images), shape))
        settings = {"negative_prompt": negative or None}
        if isinstance(self.pipeline, diffusers.LatentConsistencyModelPipeline):
            settings = {}
        try:
            with torch.inference_mode():
                latents = self.pipeline(
                    prompt,
                    num_images_per_prompt=spec.images,
                    guidance_scale=spec.guidance,
                    num_inference_steps=spec.steps,
                    latents=start,
                    height=spec.height,
                    width=spec.width,
                    output_type="latent",
                    **settings,
                ).images
                vae = self.pipeline.vae
                pictures = vae.decode(latents / vae.config.scaling_factor).sample
        finally:
            self.pipeline.scheduler = own
        pixels = (pictures / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1) * 255
        return latents.numpy(), pixels.round().to(torch.uint8).numpy()


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
    servers: dict[str, TrunkServer] = {}

    def serve(name: str) -> TrunkServer:
        if name not in servers:
            servers[name] = TrunkServer(str(prepared(name).folder))
            servers[name].start()
        return servers[name]

    yield serve
    for server in servers.values():
        server.close()


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    error = float(np.mean((found.astype(np.float64) - wanted) ** 2))
    return 200.0 if error == 0 else 20 * np.log10(float(np.ptp(wanted)) / np.sqrt(error))


def shape_of(prepared: Prepared) -> tuple[int, int, int]:
    factor = prepared.pipeline.vae_scale_factor
    return 4, HEIGHT // factor, WIDTH // factor


def spec_of(**changes) -> PictureSpec:
    usual = {"steps": 4, "guidance": 7.5, "height": HEIGHT, "width": WIDTH, "seed": 11}
    return PictureSpec(**(usual | changes))


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
@pytest.mark.parametrize("name", ["sdxl", "demo-image"])
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
    spec = spec_of(steps=25, solver="dpm++2m")
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
    asked = [("a red cat", spec_of(steps=12)), ("a small blue dog", spec_of(steps=12, seed=5))]

    def paint(prompt, spec):
        with ImageGenerator.open(whole.bundle, server.url, format="fp32") as painter:
            return painter.generate(prompt, spec=spec).latents

    alone = [paint(*each) for each in asked]
    together: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(
            target=lambda number=number: together.update({number: paint(*asked[number])})
        )
        for number in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, wanted in enumerate(alone):
        assert psnr(together[number], wanted) >= 60
    assert psnr(alone[0], alone[1]) < 40


def test_what_cannot_be_made_is_told(prepared, served, bundle) -> None:
    whole, server = prepared("sdxl"), served("sdxl")
    with ImageGenerator.open(whole.bundle, server.url) as painter:
        for spec in (
            spec_of(height=50),
            spec_of(steps=0),
            spec_of(seed=-1),
            spec_of(guidance=float("nan")),
            spec_of(rescale=2.0),
            spec_of(images=65),
            spec_of(solver="unknown"),
        ):
            with pytest.raises(UsageError):
                painter.stream("x", spec=spec)
        with pytest.raises(UsageError, match="latents of shape"):
            painter.stream("x", spec=spec_of(), latents=np.zeros((1, 4, 3, 3), np.float32))
    with pytest.raises(UsageError, match="closed"):
        painter.stream("x")
    with pytest.raises(UsageError, match="unknown format"):
        ImageGenerator.open(whole.bundle, server.url, format="int9")
    with pytest.raises(ManifestInvalid, match="generate"):
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

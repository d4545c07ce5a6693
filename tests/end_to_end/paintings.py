"""What the tests of pictures share: a pipeline with its bundle, its own pictures, likeness."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import diffusers
import numpy as np
import torch
from diffusers.schedulers import scheduling_euler_ancestral_discrete, scheduling_lcm

from edge_runtime import ImageGenerator, PictureSpec, RetryPolicy
from lambda_split.diffusion.gaussian import START, standard_normal
from tests.servers import TrunkServer

__all__ = [
    "HEIGHT",
    "RETRY",
    "SCHEDULERS",
    "WIDTH",
    "Prepared",
    "psnr",
    "servers_of",
    "shape_of",
    "spec_of",
    "two_users_get_what_each_gets_alone",
]

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


def servers_of(prepared: Callable[[str], Prepared]) -> Iterator[Callable[[str], TrunkServer]]:
    """For a fixture: starts a pipeline's server when it is first asked for."""
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


def two_users_get_what_each_gets_alone(whole: Prepared, url: str, steps: int) -> None:
    """Two devices paint one after the other, then at once."""
    asked = [
        ("a red cat", spec_of(steps=steps)),
        ("a small blue dog", spec_of(steps=steps, seed=5)),
    ]

    def paint(prompt, spec):
        with ImageGenerator.open(whole.bundle, url, format="fp32") as painter:
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

"""Whether optimum's pipelines open an exported bundle, and compute the same from it.

optimum's ONNX pipelines need older libraries than this project, so this is no test of the suite: a
person runs it, in two environments. The first step, in the project's own, makes tiny pipelines,
exports them, and notes what diffusers computes; since optimum's pipelines want a UNet beside, it
adds one as ONNX. The second step, where optimum is, opens the folders and compares::

    .venv/bin/python -m tests.optimum_check make FOLDER

    python -m venv optimum && optimum/bin/pip install transformers==4.57.6 optimum==2.1.0 \\
        optimum-onnx==0.1.0 diffusers==0.39.0 huggingface_hub==0.36.2 tokenizers==0.22.2 \\
        torch==2.13.0 onnxruntime
    optimum/bin/python tests/optimum_check.py check FOLDER

It prints, for each bundle, the largest difference of the prompt's embeddings and of the decoded
latents, and for fp32 the PSNR of a whole picture; it ends with an error where one is too large.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import sys
from typing import Any

import numpy as np

PROMPTS = ["a red circle on the left of a blue square", "Ünïcode! 23 cats, " * 20]
NEGATIVE = ["blurry", "dark"]
CASES = (("sdxl", "fp32"), ("sdxl", "fp16"), ("sdxl", "int8"), ("sd1", "fp32"), ("sd1", "int8"))
STEPS, GUIDANCE = 4, 5.0
SIDES = (48, 80)  # of the picture in pixels: what the tiny UNets halve without a rest
LIMITS = {"fp32": 1e-4, "fp16": 2e-2, "int8": 3.0}
LOWEST_PSNR = 60.0


def make(folder: pathlib.Path) -> None:
    """Export tiny pipelines, and note what diffusers computes."""
    from export import ImageExportSettings, export_image_bundle
    from tests.tiny_pipelines import save_tiny_pipeline

    for name in dict.fromkeys(name for name, _ in CASES):
        whole = save_tiny_pipeline(name, folder / name / "pipeline")
        np.savez(folder / name / "expected.npz", **_expected(whole))
    for name, weights in CASES:
        bundle = folder / name / weights
        chosen = ImageExportSettings(weights=weights, calibration_steps=2)
        export_image_bundle(str(folder / name / "pipeline"), bundle, chosen)
        _add_unet(folder / name / "pipeline", bundle)
        print(f"made {bundle}")


def _embeddings(pipeline: Any) -> dict[str, Any]:
    found = pipeline.encode_prompt(
        PROMPTS,
        device="cpu",
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
        negative_prompt=NEGATIVE,
    )
    names = ("hidden", "negative_hidden", "pooled", "negative_pooled")
    return dict(zip(names, found, strict=False))


def _picture(pipeline: Any, latents: Any) -> Any:
    return pipeline(
        PROMPTS,
        negative_prompt=NEGATIVE,
        latents=latents,
        height=SIDES[0],
        width=SIDES[1],
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        output_type="np",
    ).images


def _expected(whole: Any) -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    latents = torch.randn(len(PROMPTS), 4, SIDES[0] // 4, SIDES[1] // 4)
    scaled = latents / whole.vae.config.scaling_factor
    with torch.inference_mode():
        arrays = {name: value.numpy() for name, value in _embeddings(whole).items()}
        arrays["decoded"] = whole.vae.decode(scaled).sample.numpy()
    arrays |= {"latents": latents.numpy(), "scaled": scaled.numpy()}
    return arrays | {"picture": _picture(whole, latents)}


def _add_unet(pipeline: pathlib.Path, bundle: pathlib.Path) -> None:
    """Write the UNet as optimum's pipelines want it."""
    import torch
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(pipeline / "unet").eval()
    batch = {0: "batch"}
    inputs = {
        "sample": (torch.zeros(2, 4, 8, 12), {0: "batch", 2: "height", 3: "width"}),
        "timestep": (torch.tensor(1.0), {}),
        "encoder_hidden_states": (torch.zeros(2, 77, unet.config.cross_attention_dim), batch),
    }
    if unet.config.addition_embed_type == "text_time":
        width = unet.config.projection_class_embeddings_input_dim
        pooled = width - 6 * unet.config.addition_time_embed_dim
        inputs["text_embeds"] = (torch.zeros(2, pooled), batch)
        inputs["time_ids"] = (torch.zeros(2, 6), batch)

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = unet

        def forward(self, sample, timestep, hidden, text_embeds=None, time_ids=None):
            told = {"text_embeds": text_embeds, "time_ids": time_ids}
            return self.unet(sample, timestep, hidden, added_cond_kwargs=told, return_dict=False)[0]

    program = torch.onnx.export(
        Wrapped(),
        tuple(example for example, _ in inputs.values()),
        dynamo=True,
        input_names=list(inputs),
        output_names=["out_sample"],
        dynamic_shapes=tuple(axes for _, axes in inputs.values()),
        verbose=False,
    )
    (bundle / "unet").mkdir()
    program.save(bundle / "unet/model.onnx", external_data=False)
    config = json.loads((pipeline / "unet/config.json").read_text())
    (bundle / "unet/config.json").write_text(json.dumps(config))


def check(folder: pathlib.Path) -> int:
    """Open the bundles with optimum and compare; returns how many differ too much."""
    import torch
    from optimum.onnxruntime import ORTStableDiffusionPipeline, ORTStableDiffusionXLPipeline

    wrong = 0
    for name, weights in CASES:
        xl = name == "sdxl"
        pipeline_class = ORTStableDiffusionXLPipeline if xl else ORTStableDiffusionPipeline
        pipeline = pipeline_class.from_pretrained(folder / name / weights)
        pipeline.set_progress_bar_config(disable=True)
        with np.load(folder / name / "expected.npz") as arrays:
            expected = dict(arrays)
        found = _embeddings(pipeline)
        errors = [abs(found[one].numpy() - expected[one]).max() for one in found]
        (decoded,) = pipeline.vae.decode(torch.from_numpy(expected["scaled"]), return_dict=False)
        difference = abs(decoded.numpy() - expected["decoded"]).max()
        line = f"{name} {weights}: embeddings within {max(errors):.2g}, decoder {difference:.2g}"
        good = max(errors) < LIMITS[weights] and difference < LIMITS[weights]
        if weights == "fp32":
            picture = _picture(pipeline, torch.from_numpy(expected["latents"]))
            error = float(np.sqrt(np.mean(np.square(picture - expected["picture"]))))
            psnr = -20 * math.log10(max(error, 1e-10))
            line += f", a whole picture {psnr:.0f} dB"
            good = good and psnr > LOWEST_PSNR
        print(line if good else f"{line}: TOO FAR")
        wrong += not good
    return wrong


def main() -> int:
    """Run one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("step", choices=("make", "check"))
    parser.add_argument("folder", type=pathlib.Path)
    args = parser.parse_args()
    if args.step == "check":
        return int(check(args.folder) > 0)
    make(args.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

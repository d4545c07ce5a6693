"""What making pictures of SDXL's size needs on the device: memory and seconds of both ends.

Text encoders and VAE decoder of SDXL's real dimensions with random weights, exported as a bundle,
run in a process that has nothing but the device side, onnxruntime on some threads. Each process
does one thing, so that the memory is that thing's. Prints Markdown.

    python -m benchmarks.picture_ends
    python -m benchmarks.picture_ends --sizes 512,1024 --folder /a/disk/with/space
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from benchmarks.processes import measure
from tests.tiny_pipelines import save_tiny_pipeline

_LIBRARY: Any = diffusers  # its classes are typed in part
_POOLED, _TIME_ID_WIDTH = 1280, 8
_WIDTHS = (768, _POOLED)  # CLIP ViT-L, OpenCLIP ViT-bigG

_RUN = """
import json, pathlib, re, statistics, sys, time
import numpy as np
from edge_runtime import RuntimeSettings
from edge_runtime.pictures.decoder import load_decoder
from edge_runtime.pictures.prompts import load_prompt_encoders
from lambda_split.image_bundle import load_image_bundle
folder, threads, repeats, sizes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
def memory(field):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(field + r":\\s+(\\d+) kB", status)[1]) * 1024
imported = memory("VmRSS")
begin = time.perf_counter()
bundle = load_image_bundle(folder)
checked = time.perf_counter() - begin
settings, begin = RuntimeSettings(threads=threads), time.perf_counter()
found, seconds = {"imported": imported, "checked": checked}, []
encoders = decoder = None
if sizes in ("prompts", "all"):
    encoders = load_prompt_encoders(bundle, settings)
if sizes != "prompts":
    decoder = load_decoder(bundle, settings)
found["load"], found["loaded"] = time.perf_counter() - begin, memory("VmRSS")
for _ in range(repeats):
    begin = time.perf_counter()
    if encoders is not None:
        encoders.encode(["a red cat", "dog"])
    if decoder is not None:
        side = 64 if sizes == "all" else int(sizes) // 8
        decoder.decode(np.random.default_rng(0).normal(size=(1, 4, side, side)).astype(np.float32))
    seconds.append(time.perf_counter() - begin)
found |= {"first": seconds[0], "seconds": statistics.median(seconds), "after": memory("VmRSS")}
print(json.dumps(found | {"peak": memory("VmHWM")}))
"""


def write_pipeline(folder: pathlib.Path) -> None:
    """SDXL's text encoders and VAE in half precision, and a UNet that only fits between them."""
    torch.manual_seed(0)
    save_tiny_pipeline("sdxl", folder)  # for its tokenizers and model_index.json
    for name, part in _parts().items():
        part.half().save_pretrained(folder / name)
    _LIBRARY.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    ).save_pretrained(folder / "scheduler")


def _parts() -> dict[str, Any]:
    clip: dict[str, Any] = {"num_attention_heads": 12, "num_hidden_layers": 12}
    clip |= {"hidden_act": "quick_gelu"}
    big: dict[str, Any] = {"num_attention_heads": 20, "num_hidden_layers": 32, "hidden_act": "gelu"}
    small, large = (
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            max_position_embeddings=77,
            eos_token_id=2,  # as published: the greatest id stands for the end
            **settings,
        )
        for width, settings in zip(_WIDTHS, (clip, big), strict=True)
    )
    return {
        "text_encoder": CLIPTextModel(small),
        "text_encoder_2": CLIPTextModelWithProjection(large),
        "vae": _LIBRARY.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            sample_size=1024,
            scaling_factor=0.13025,
        ),
        "unet": _LIBRARY.UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(32, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            attention_head_dim=(1, 1),
            cross_attention_dim=sum(_WIDTHS),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=_TIME_ID_WIDTH,
            projection_class_embeddings_input_dim=_POOLED + 6 * _TIME_ID_WIDTH,
        ),
    }


def run(folder: pathlib.Path, weights: str, sizes: list[int], threads: int, repeats: int) -> None:
    """All steps, printing as it goes."""
    model, bundle = folder / "model", folder / f"bundle-{weights}"
    if not model.exists():
        write_pipeline(model)
    if not bundle.exists():
        settings = ("--out", str(bundle), "--weights", weights, "--calibrate-steps", "0", "--quiet")
        command = (sys.executable, "-m", "lambda_split.cli", "export", str(model), *settings)
        cost = measure(*command)
        print(f"export, {weights}: {cost.seconds:.0f} s, peak {cost.peak_rss / 1e9:.2f} GB\n")
    files = [path for path in bundle.rglob("*") if path.is_file()]
    print(f"Bundle in {weights}: {sum(path.stat().st_size for path in files) / 1e6:.0f} MB.\n")
    headings = "load, s | first, s | median, s | RSS loaded | RSS after | peak RSS"
    print(f"| in a process of its own | {headings} |\n|---|---|---|---|---|---|---|")
    tasks = {"two prompts through both text encoders": "prompts"}
    tasks |= {f"VAE decoder, {size} × {size}": str(size) for size in sizes}
    tasks["all of it, 512 × 512"] = "all"
    for name, task in tasks.items():
        done = subprocess.run(
            [sys.executable, "-c", _RUN, bundle, str(threads), str(repeats), task],
            check=True,
            capture_output=True,
            text=True,
        )
        found = json.loads(done.stdout)
        memory = (f"{found[key] / 1e6:.0f} MB" for key in ("loaded", "after", "peak"))
        seconds = (f"{found[key]:.2f}" for key in ("load", "first", "seconds"))
        print(f"| {name} | {' | '.join([*seconds, *memory])} |")
    print(
        f"\nOf these, {found['imported'] / 1e6:.0f} MB are the imports; checking the bundle's "
        f"files took {found['checked']:.1f} s."
    )


def main() -> None:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.picture_ends",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--weights", default="int8", help="of the bundle (%(default)s)")
    parser.add_argument("--sizes", default="512", help="of pictures, with commas (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of onnxruntime (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="runs (%(default)s)")
    parser.add_argument("--folder", type=pathlib.Path, help="where 4 GB may be written")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder to use, and use again, instead")
    args = parser.parse_args()
    sizes = [int(size) for size in args.sizes.split(",")]
    if args.keep is not None:
        run(args.keep, args.weights, sizes, args.threads, args.repeats)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        run(pathlib.Path(folder), args.weights, sizes, args.threads, args.repeats)


if __name__ == "__main__":
    main()

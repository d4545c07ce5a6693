"""What the deep split costs against the whole one: bytes and the device's time in a step.

Bytes are computed from the wire's own layout, headers included. The device's time is that of the
UNet's first and last blocks under onnxruntime, as a bundle's graphs compute them; with the whole
split there is nothing of that. Blocks have random weights of a published model's shape, or are
those of a bundle.

    python -m benchmarks.deep_split                            SDXL, 512 × 512, fp32 and int8
    python -m benchmarks.deep_split --model sd15 --size 512x768
    python -m benchmarks.deep_split --bundle ./deep            a bundle's own graphs and size
    python -m benchmarks.deep_split --bytes-only               nothing is measured
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from benchmarks.random_blocks import MODELS, Blocks, random_blocks, rows_of
from edge_runtime.graph_session import RuntimeSettings
from edge_runtime.pictures.blocks import Told, load_blocks
from lambda_split.image_bundle import load_image_bundle
from lambda_split.wire.frames import HEADER_BYTES
from lambda_split.wire.pictures.layout import DeepGeometry
from lambda_split.wire.tensor_codecs import decode, encode
from lambda_split.wire.tensor_format import TensorFormat, payload_bytes

FORMATS = "fp32,fp16,fp8-e4m3,int8,int8-channel,nf4-channel"
CHANNELS, FACTOR = 4, 8


def bundle_blocks(folder: str, settings: RuntimeSettings) -> Blocks:
    """Those of a bundle."""
    bundle = load_image_bundle(folder)
    runner, manifest = load_blocks(bundle, settings), bundle.manifest
    told: dict[str, tuple[int, ...]] = {
        "context": (manifest.encoders[0].max_tokens, manifest.conditioning.width)
    }
    if manifest.conditioning.pooled_width is not None:
        told["pooled"] = (manifest.conditioning.pooled_width,)
    if manifest.conditioning.time_ids:
        told["time_ids"] = (6,)
    if manifest.conditioning.guidance_embedding is not None:
        told["guidance"] = ()
    names = [name for name in manifest.files if name.startswith(("unet_first/", "unet_last/"))]
    return Blocks(runner, told, sum(manifest.files[name].size for name in names))


def step_bytes(
    form: TensorFormat, geometry: DeepGeometry, latents: tuple[int, int], images: int, branches: int
) -> tuple[int, int, int, int]:
    """Bytes of a step: whole up, whole down, deep up, deep down."""
    height, width = latents
    inner = (-(-height // geometry.reduction), -(-width // geometry.reduction))
    rows = images * branches
    return (
        HEADER_BYTES,
        HEADER_BYTES + payload_bytes(form, (images, CHANNELS, height, width)),
        HEADER_BYTES + payload_bytes(form, (rows, geometry.input_channels, *inner)),
        HEADER_BYTES + payload_bytes(form, (rows, geometry.output_channels, *inner)),
    )


def milliseconds(
    blocks: Blocks, latents: tuple[int, int], rows: int, repeats: int
) -> tuple[float, float]:
    """Medians of the first and of the last blocks."""
    random = np.random.default_rng(1)
    noisy = random.standard_normal((rows, CHANNELS, *latents), np.float32)
    told = Told(rows_of(blocks.told, rows))
    geometry = blocks.runner.geometry
    inner = (-(-side // geometry.reduction) for side in latents)
    returned = random.standard_normal((rows, geometry.output_channels, *inner), np.float32)
    first_ms: list[float] = []
    last_ms: list[float] = []
    for number in range(repeats + 1):
        begin = time.perf_counter()
        first = blocks.runner.first(noisy, 500.0, told)
        between = time.perf_counter()
        blocks.runner.last(returned, first, noisy.shape[1:])
        end = time.perf_counter()
        if number:  # the first one warms up
            first_ms.append((between - begin) * 1e3)
            last_ms.append((end - between) * 1e3)
    return statistics.median(first_ms), statistics.median(last_ms)


def coding_milliseconds(form: TensorFormat, shapes: list[tuple[int, ...]]) -> tuple[float, float]:
    """Encoding what goes up, and decoding what comes down; medians of five."""
    random = np.random.default_rng(2)
    up, down = (random.standard_normal(shape, np.float32) for shape in shapes)
    payload = encode(down, form)
    there: list[float] = []
    back: list[float] = []
    for _ in range(5):
        begin = time.perf_counter()
        encode(up, form)
        between = time.perf_counter()
        decode(payload, form, down.shape)
        there.append((between - begin) * 1e3)
        back.append((time.perf_counter() - between) * 1e3)
    return statistics.median(there), statistics.median(back)


def print_bytes(
    labels: str,
    geometry: DeepGeometry,
    latents: tuple[int, int],
    images: int,
    branches: int,
    *,
    measured: bool,
) -> None:
    """A row for each format."""
    coding = " encode, ms | decode, ms |" if measured else ""
    print(f"\n| format | whole: up | down | deep: up | down | deep / whole |{coding}")
    print("|---|---|---|---|---|---|" + "---|---|" * measured)
    for label in labels.split(","):
        form = TensorFormat.from_label(label)
        if form is None or form.delta:
            raise SystemExit(f"no format of the deep split: {label!r}")
        found = step_bytes(form, geometry, latents, images, branches)
        ratio = (found[2] + found[3]) / (found[0] + found[1])
        row = f"| {label} | " + " | ".join(f"{size:,}" for size in found) + f" | {ratio:.0f} |"
        if measured:
            half = tuple(-(-side // geometry.reduction) for side in latents)
            rows = images * branches
            shapes = [(rows, geometry.input_channels, *half)]
            shapes.append((rows, geometry.output_channels, *half))
            row += "".join(f" {value:.1f} |" for value in coding_milliseconds(form, shapes))
        print(row)


def main() -> None:
    """Compute, measure and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="sdxl", help="(%(default)s)")
    parser.add_argument("--weights", default="fp32,int8", help="of random blocks (%(default)s)")
    parser.add_argument("--bundle", metavar="DIR", help="measure a bundle's own blocks instead")
    parser.add_argument("--size", default="512x512", help="HEIGHTxWIDTH in pixels (%(default)s)")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--branches", type=int, default=2, choices=(1, 2), help="2: with guidance")
    parser.add_argument("--formats", default=FORMATS, help="(%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="(%(default)s)")
    parser.add_argument(
        "--threads", type=int, help="onnxruntime's; those of a device where not given"
    )
    parser.add_argument("--bytes-only", action="store_true")
    args = parser.parse_args()
    factor = FACTOR
    if args.bundle:
        factor = load_image_bundle(args.bundle, check_contents=False).manifest.latents.scale_factor
    height, width = (int(side) // factor for side in args.size.split("x"))
    settings = RuntimeSettings(threads=args.threads)
    rows = args.images * args.branches
    geometry = DeepGeometry(320, 640, 2)
    print(
        f"{args.bundle or args.model}, {args.size}, {rows} rows, {settings.thread_count()} threads"
    )
    if not args.bytes_only:
        print("\n| weights | MB | first blocks, ms | last blocks, ms | together, ms a step |")
        print("|---|---|---|---|---|")
        for weights in ["bundle"] if args.bundle else args.weights.split(","):
            if args.bundle:
                blocks = bundle_blocks(args.bundle, settings)
                geometry = blocks.runner.geometry
                found = milliseconds(blocks, (height, width), rows, args.repeats)
            else:
                with random_blocks(args.model, weights, settings) as blocks:
                    found = milliseconds(blocks, (height, width), rows, args.repeats)
            first, last = found
            print(
                f"| {weights} | {blocks.nbytes / 1e6:.1f} | {first:.0f} | {last:.0f} "
                f"| {first + last:.0f} |"
            )
    print_bytes(
        args.formats,
        geometry,
        (height, width),
        args.images,
        args.branches,
        measured=not args.bytes_only,
    )


if __name__ == "__main__":
    main()

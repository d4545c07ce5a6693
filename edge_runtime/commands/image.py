"""Make a picture: text encoders, solver and decoder here, the denoiser at --url.

The picture is written to --out as PNG; a summary of speed and traffic goes to stderr. Prompt and
picture stay on this device; what crosses the wire is the prompt's encoding, and noise or, with a
bundle whose split is deep, features. That hides neither of them from the server, see
docs/threat-model.md.

The file holds its parameters, the prompt among them, as text: --no-metadata leaves them out.

Try:
  lambda-split image --bundle ./bundle --url ws://127.0.0.1:8765 --prompt "a red circle" --out a.png
  lambda-split image --bundle ./bundle --url … --prompt "…" --seed 7 --solver dpm++2m --out b.png
  lambda-split image --bundle ./bundle --url … --prompt "…" --preview-every 5 --images 4 --out c.png
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import msgspec

from edge_runtime.commands.prompts import read_prompt
from edge_runtime.graph_session import RuntimeSettings
from edge_runtime.pictures.generator import DEFAULT_FORMAT, ImageGenerator
from edge_runtime.pictures.png import write_png
from edge_runtime.pictures.request import PictureSpec
from edge_runtime.pictures.stream import ImageResult
from edge_runtime.pictures.terminal import as_text, columns_on
from edge_runtime.terminal.progress import progress_bar
from lambda_split.arguments import check_png_name, non_negative, positive, read_token_file
from lambda_split.diffusion.scheduler_config import SOLVER_NAMES
from lambda_split.errors import OutputNotWritable

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--bundle", required=True, metavar="DIR", help="what 'export' wrote")
    parser.add_argument(
        "--url", required=True, help="the denoiser's service, ws://HOST:PORT or wss://HOST:PORT"
    )
    parser.add_argument(
        "--prompt", required=True, metavar="TEXT", help="what to show; '-' reads it from stdin"
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        type=pathlib.Path,
        help="the PNG file; of several images each gets a number before the ending",
    )
    parser.add_argument(
        "--negative", default="", metavar="TEXT", help="what to lead away from (with guidance)"
    )
    picture = parser.add_argument_group("picture")
    picture.add_argument("--steps", type=positive, default=25, metavar="N", help="default 25")
    picture.add_argument(
        "--guidance",
        type=float,
        default=5.0,
        metavar="G",
        help="how closely to follow the prompt; 1 is not at all, and half the work (default 5)",
    )
    picture.add_argument(
        "--rescale", type=float, default=0.0, metavar="R", help="guidance rescale, 0 to 1"
    )
    picture.add_argument("--height", type=positive, metavar="PIXELS", help="the model's own")
    picture.add_argument("--width", type=positive, metavar="PIXELS", help="the model's own")
    picture.add_argument("--images", type=positive, default=1, metavar="N", help="default 1")
    picture.add_argument(
        "--seed", type=non_negative, metavar="N", help="the same seed, the same picture"
    )
    picture.add_argument(
        "--solver", choices=SOLVER_NAMES, help="the model's own scheduler where not given"
    )
    picture.add_argument(
        "--preview-every",
        type=positive,
        metavar="K",
        help="write what can be seen so far to --out after every K steps",
    )
    picture.add_argument(
        "--no-metadata", action="store_true", help="leave prompt and parameters out of the file"
    )
    link = parser.add_argument_group("link")
    link.add_argument(
        "--codec",
        default=DEFAULT_FORMAT,
        metavar="FORMAT",
        help="how predicted noise, or features, cross the wire: fp32, fp16, bf16, fp8-e4m3, "
        "fp8-e5m2, int8 … int1, nf8 … nf1, int8-channel …, nf4-delta … (not with a deep bundle) "
        f"(default: {DEFAULT_FORMAT})",
    )
    link.add_argument(
        "--unsynchronized",
        action="store_true",
        help="the trunk steps with its exact noise, not with what this device decodes",
    )
    link.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
    link.add_argument(
        "--ca-file",
        metavar="FILE",
        help="trust the issuers in this file (PEM), too: for a server with a private certificate",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads")
    parser.add_argument(
        "--show", action="store_true", help="show it on stderr too: a terminal with 24-bit colours"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress and summary on stderr")


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        UsageError: the picture's name does not end with .png.
        OutputNotWritable: there is no folder for the picture; told before it is made.
    """
    check_png_name(args.out)
    if not args.out.parent.is_dir():
        raise OutputNotWritable(str(args.out), "there is no such folder")
    spec = PictureSpec(
        steps=args.steps,
        guidance=args.guidance,
        rescale=args.rescale,
        height=args.height,
        width=args.width,
        seed=args.seed,
        images=args.images,
        solver=args.solver,
        synchronized=not args.unsynchronized,
    )
    prompt = read_prompt(args.prompt)  # a session is not held open while somebody types it
    with ImageGenerator.open(
        args.bundle,
        args.url,
        token=None if args.token_file is None else read_token_file(args.token_file),
        ca_file=args.ca_file,
        format=args.codec,
        runtime=RuntimeSettings(threads=args.threads),
    ) as painter:
        stream = painter.stream(
            prompt,
            negative_prompt=args.negative,
            spec=spec,
            preview_every=args.preview_every or 0,
        )
        with progress_bar("painting", "steps", show=not args.quiet) as bar:
            for step in stream:
                bar(step.number, step.steps)
                if not args.quiet and not sys.stderr.isatty():
                    sys.stderr.write(f"step {step.number} of {step.steps}\n")
                if step.preview is not None:
                    paths = _paths(args.out, args.images)
                    for path, image in zip(paths, step.preview, strict=True):
                        write_png(path, image)
        result = stream.result
    texts = {} if args.no_metadata else _parameters(args, prompt, result)
    paths = _paths(args.out, args.images)
    for path, image in zip(paths, result.images, strict=True):
        write_png(path, image, texts)
    if args.show:
        columns = columns_on(sys.stderr)
        sys.stderr.writelines(as_text(image, columns) for image in result.images)
    if args.json:
        sys.stdout.write(_as_json(result, paths) + "\n")
    else:
        sys.stdout.writelines(f"{path}\n" for path in paths)
    if not args.quiet:
        sys.stderr.write(f"seed {result.seed}\n{result.stats.summary()}\n")
    return 0


def _paths(out: pathlib.Path, images: int) -> list[pathlib.Path]:
    if images == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{number}{out.suffix}") for number in range(1, images + 1)]


def _parameters(args: argparse.Namespace, prompt: str, result: ImageResult) -> dict[str, str]:
    """What other programs show as a picture's parameters."""
    spec = result.spec
    told = {
        "Prompt": prompt,
        "Negative prompt": args.negative,
        "Seed": str(result.seed),
        "Steps": str(spec.steps),
        "Guidance": f"{spec.guidance:g}",
        "Solver": spec.solver or "the model's own",
        "Format": args.codec,
        "Software": "lambda-split",
    }
    return {keyword: text for keyword, text in told.items() if text}


def _as_json(result: ImageResult, paths: list[pathlib.Path]) -> str:
    stats = result.stats
    return msgspec.json.encode(
        {
            "files": [str(path) for path in paths],
            "seed": result.seed,
            "timing": {
                "total_s": stats.total_s,
                "encode_s": stats.encode_s,
                "link_s": stats.link_s,
                "trunk_s": stats.trunk_s,
                "blocks_s": stats.blocks_s,
                "decode_s": stats.decode_s,
            },
            "wire": {
                "bytes_up": stats.bytes_up,
                "bytes_down": stats.bytes_down,
                "reconnects": stats.reconnects,
            },
        }
    ).decode()

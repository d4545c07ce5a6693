"""Cut a model's head and tail out of a checkpoint and write them as a bundle for devices.

Of a language model the head (embedding, first layers) and the tail (last layers, LM head) become
ONNX graphs, of a text-to-image pipeline the text encoders and the VAE decoder, with '--split deep'
the UNet's first and last blocks as well; with tokenizers and a manifest they are the one folder
that a device needs. Of a sharded checkpoint only the shards that hold these parts are read (for the
deep split all of the UNet's). Before the bundle appears, the written graphs are run and compared
with PyTorch.

Examples:
  lambda-split export demo --out bundle
  lambda-split export demo-image --out pictures
  lambda-split export demo-image --out pictures --split deep
  lambda-split export meta-llama/Llama-3.2-1B-Instruct --out bundle --weights int8
  lambda-split export ./my-model --out bundle --head-layers 4 --tail-layers 4 --lora ./adapter
  lambda-split export ./my-model --out bundle --split 1,1 --split 2,2 --split 4,3

Then serve the trunk of the same model (with the same adapters): 'lambda-split serve MODEL'.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from export import (
    ExportSettings,
    ImageExportSettings,
    Progress,
    QuietProgress,
    export_bundle,
    export_image_bundle,
    is_pipeline,
    progress_on_stderr,
)
from export.images.settings import DEFAULT_CALIBRATION_STEPS, DEFAULT_IMAGE_WEIGHTS
from export.settings import AttentionChoice
from export.summary import image_summary, serve_command, text_next_step, text_summary
from lambda_split.arguments import non_negative, positive, split_pair
from lambda_split.bundle import WeightFormat
from lambda_split.ending import end_with_stdin
from lambda_split.errors import UsageError
from lambda_split.image_bundle import ImageSplit, ImageWeights
from lambda_split.split import Split

__all__ = ["add_arguments", "run"]

# What says something about the other kind of model only, and its defaults.
_TEXT_ONLY = {"head_layers": None, "tail_layers": None, "attention": "auto", "max_positions": None}
_PICTURES_ONLY = {
    "vae": "full",
    "calibrate_steps": DEFAULT_CALIBRATION_STEPS,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command's arguments; how the model is cut is explained where it is chosen."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a local folder with safetensors, a Hugging Face id, or a shipped model: 'demo' for "
        "text, 'demo-image' for pictures",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="the bundle's folder, to be made"
    )
    parser.add_argument(
        "--head-layers",
        metavar="N",
        type=non_negative,
        help="decoder layers that the device runs before the trunk; 0 leaves it the embedding "
        "alone (default: 1)",
    )
    parser.add_argument(
        "--tail-layers",
        metavar="N",
        type=non_negative,
        help="decoder layers that the device runs after the trunk; 0 leaves it the norm and the "
        "LM head (default: 1)",
    )
    parser.add_argument(
        "--split",
        metavar="H,T|whole|deep",
        type=_split,
        action="append",
        default=[],
        help="for text: the same in one, H head and T tail layers; given several times, the bundle "
        "holds each of these splits, with shared weights, and a device draws one for each session "
        "(its runtime uses the first where it can't choose). For pictures: the trunk is the whole "
        "UNet (the default), or (deep) the UNet without its first and last blocks, which the "
        "device then runs in each step: latents and noise stay on it, more crosses the wire",
    )
    parser.add_argument(
        "--weights",
        choices=get_args(WeightFormat),
        help="how weights are stored: int4 is smallest and fastest, for text only, int8 is nearly "
        f"exact, fp16 and fp32 compute in float32 (default: int4, or {DEFAULT_IMAGE_WEIGHTS} for "
        "pictures)",
    )
    parser.add_argument(
        "--attention",
        choices=get_args(AttentionChoice),
        default="auto",
        help="shared-kv appends to one cache in place (onnxruntime's own operator); concat-kv uses "
        "standard ONNX operators, for other runtimes; auto takes shared-kv where it can "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--vae",
        metavar="full|tiny|MODEL",
        default="full",
        help="for pictures: the pipeline's own decoder, a light one for the same latents "
        "(AutoencoderTiny), or the folder or Hugging Face id of another (default: %(default)s)",
    )
    parser.add_argument(
        "--calibrate-steps",
        metavar="N",
        type=non_negative,
        default=DEFAULT_CALIBRATION_STEPS,
        help="for int8 pictures: denoising steps of the few pictures that ranges come from; "
        "the pipeline itself makes them, so this reads its UNet once; 0 takes artificial latents "
        "and, unless the split is deep, does not (default: %(default)s)",
    )
    parser.add_argument(
        "--lora",
        metavar="PATH",
        action="append",
        default=[],
        help="a LoRA adapter to merge into the weights; may be given several times, and the trunk "
        "must be served with the same ones",
    )
    parser.add_argument(
        "--revision", metavar="REV", help="commit, branch or tag of a Hugging Face id"
    )
    parser.add_argument(
        "--max-positions",
        metavar="N",
        type=positive,
        help="limit a session's positions, and so the device's cache (default: the model's own)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an existing bundle, once the new one is whole",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    parser.add_argument(
        "--end-with-stdin",
        action="store_true",
        help="end as with SIGTERM once stdin ends: for programs that start an export through a "
        "pipe and must not leave it behind, even when they are killed",
    )


def run(args: argparse.Namespace) -> int:
    """Export, and say on stdout what was written.

    Raises:
        LambdaSplitError: as :func:`export.export_bundle`.
    """
    if args.end_with_stdin:
        end_with_stdin()
    progress = QuietProgress() if args.quiet else progress_on_stderr()
    if is_pipeline(args.model, args.revision):
        _refuse(args, _TEXT_ONLY, "a text-to-image pipeline")
        return _export_pictures(args, progress)
    _refuse(args, _PICTURES_ONLY, "a language model")
    split, *further = _text_splits(args)
    settings = ExportSettings(
        split=split,
        further_splits=tuple(further),
        weights=args.weights or ExportSettings.weights,
        attention=args.attention,
        lora=tuple(args.lora),
        revision=args.revision,
        max_positions=args.max_positions,
        overwrite=args.overwrite,
    )
    manifest = export_bundle(args.model, args.out, settings, progress=progress)
    sys.stdout.write(text_summary(args.out, manifest) + text_next_step(args.model, settings))
    return 0


def _refuse(args: argparse.Namespace, options: Mapping[str, object], model: str) -> None:
    for name, default in options.items():
        if getattr(args, name) != default:
            raise UsageError(f"--{name.replace('_', '-')} says nothing about {model}")


def _split(text: str) -> Split | ImageSplit:
    """An argparse type: of text or of pictures; which of them is meant shows with the model."""
    named: tuple[ImageSplit, ...] = get_args(ImageSplit)
    return next((name for name in named if name == text), None) or split_pair(text)


def _text_splits(args: argparse.Namespace) -> list[Split]:
    named = [split for split in args.split if not isinstance(split, Split)]
    if named:
        raise UsageError(f"--split {named[0]} says nothing about a language model, but H,T does")
    layers = (args.head_layers, args.tail_layers)
    if not args.split:
        return [Split(*(1 if count is None else count for count in layers))]
    if layers != (None, None):
        raise UsageError("--split says what --head-layers and --tail-layers do: give one of both")
    return list(args.split)


def _picture_split(args: argparse.Namespace) -> ImageSplit:
    match args.split:
        case []:
            return "whole"
        case ["whole"]:
            return "whole"
        case ["deep"]:
            return "deep"
        case _:
            raise UsageError("--split of a text-to-image pipeline is one of whole and deep")


def _export_pictures(args: argparse.Namespace, progress: Progress) -> int:
    weights = args.weights or DEFAULT_IMAGE_WEIGHTS
    if weights not in get_args(ImageWeights):
        formats = ", ".join(get_args(ImageWeights))
        raise UsageError(f"a text-to-image bundle has no {weights} weights, but {formats}")
    settings = ImageExportSettings(
        split=_picture_split(args),
        weights=weights,
        vae=args.vae,
        calibration_steps=args.calibrate_steps,
        lora=tuple(args.lora),
        revision=args.revision,
        overwrite=args.overwrite,
    )
    manifest = export_image_bundle(args.model, args.out, settings, progress=progress)
    command = serve_command(args.model, settings.lora, settings.revision)
    sys.stdout.write(image_summary(args.out, manifest) + command)
    return 0

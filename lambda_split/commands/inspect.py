"""Show what a bundle holds and check every file in it.

Reads the manifest, compares each file's size and sha256, and prints the model, the split, the
graphs and how far they are from PyTorch, of a language model or a
text-to-image pipeline. Exit code 1 with one line where anything is wrong.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Mapping

import msgspec

from lambda_split.bundle import Manifest, ModelSource, Verification, load_bundle
from lambda_split.bundle_files import FileEntry, read_raw_manifest
from lambda_split.image_bundle import IMAGE_KIND, ImageManifest, load_image_bundle
from lambda_split.split import Split

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", metavar="DIR", help="the bundle's folder")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON instead")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    manifest: Manifest | ImageManifest
    if read_raw_manifest(pathlib.Path(args.bundle)).kind == IMAGE_KIND:
        manifest = load_image_bundle(args.bundle).manifest
    else:
        manifest = load_bundle(args.bundle).manifest
    if args.json:
        sys.stdout.write(msgspec.json.encode(manifest).decode() + "\n")
    elif isinstance(manifest, ImageManifest):
        sys.stdout.write(describe_pictures(manifest))
    else:
        sys.stdout.write(describe(manifest))
    return 0


def describe(manifest: Manifest) -> str:
    """A language model's bundle in a few lines."""
    geometry = manifest.geometry
    lines = [
        _title(manifest),
        *(_layers(split, geometry.layer_count) for split in manifest.choices),
        f"  hidden size  {geometry.hidden_size}",
        f"  vocabulary   {geometry.vocab_size:,}",
        f"  positions    {geometry.max_positions:,}",
        *_source(manifest.model),
    ]
    for name, graph in manifest.graphs.items():
        lines.append(f"  {name:12} {graph.file}, {graph.weights}, {graph.attention}")
    if manifest.text is not None:
        chat = "with" if manifest.text.chat_template else "without"
        lines.append(f"  text         {manifest.text.tokenizer}, {chat} chat template")
    lines += [
        f"  split {one.split!s:6} {one.head} and {one.tail}{_verified(one.verification)}"
        for one in manifest.splits
    ]
    if not manifest.splits and manifest.verification is not None:
        lines.append(f"  verified     {_figures(manifest.verification)}")
    return "\n".join([*lines, *_files(manifest.files)]) + "\n"


def _layers(split: Split, layer_count: int) -> str:
    trunk = len(split.trunk(layer_count))
    return f"  layers       {split.head_layers} head + {trunk} trunk + {split.tail_layers} tail"


def _verified(check: Verification | None) -> str:
    return "" if check is None else f", verified {_figures(check)}"


def _figures(check: Verification) -> str:
    return (
        f"on {check.tokens} tokens against PyTorch: KL {check.kl_divergence:.2g} nats, top-1 "
        f"{check.top1_agreement:.1%}, logits within {check.logits_max_error:.2g}"
    )


def describe_pictures(manifest: ImageManifest) -> str:
    """A text-to-image bundle in a few lines."""
    latents, told = manifest.latents, manifest.conditioning
    extras = f", pooled {told.pooled_width}" if told.pooled_width else ""
    extras += ", time ids" if told.time_ids else ""
    extras += ", guidance embedding" if told.guidance_embedding else ""
    lines = [
        _title(manifest),
        f"  split        {manifest.split}",
        f"  pictures     {latents.width} × {latents.height}",
        f"  latents      {latents.channels} channels, 1/{latents.scale_factor} of the sides",
        f"  told         {told.width} wide{extras}",
        f"  scheduler    {manifest.scheduler.name}",
        *_source(manifest.model),
    ]
    for name, graph in manifest.graphs.items():
        lines.append(f"  {name:12} {graph.file}, {graph.weights}")
    if check := manifest.verification:
        cosine = min(encoder.cosine for encoder in check.encoders.values())
        lines.append(
            f"  verified     on {check.prompts} prompts and {check.pictures} pictures against "
            f"PyTorch: cosine {cosine:.6f}, PSNR {check.vae.psnr:.1f} dB"
        )
        if check.blocks is not None:
            lines[-1] += f", error of the noise {check.blocks.noise:.2g}"
    return "\n".join([*lines, *_files(manifest.files)]) + "\n"


def _title(manifest: Manifest | ImageManifest) -> str:
    model = manifest.model
    return f"{model.id} ({model.family}, {manifest.kind}), made by {manifest.producer}"


def _source(model: ModelSource) -> list[str]:
    lines = [f"  fingerprint  {model.fingerprint} ({len(model.witnesses)} witnesses)"]
    if model.revision:
        lines.append(f"  revision     {model.revision}")
    if model.lora:
        lines.append(f"  adapters     {', '.join(model.lora)}")
    return lines


def _files(files: Mapping[str, FileEntry]) -> list[str]:
    return [
        "files (all present and unaltered)",
        *(f"  {entry.size:>14,}  {name}" for name, entry in sorted(files.items())),
        f"  {sum(entry.size for entry in files.values()):>14,}  in all",
    ]

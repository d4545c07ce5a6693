"""Show what a bundle holds and check every file in it.

Reads the manifest, compares each file's size and sha256, and prints the model, the split, the
graphs and how far they are from PyTorch. Exit code 1 with one line where anything is wrong.
"""

from __future__ import annotations

import argparse
import sys

import msgspec

from lambda_split.bundle import Manifest, load_bundle

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", metavar="DIR", help="the bundle's folder")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON instead")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    manifest = load_bundle(args.bundle).manifest
    if args.json:
        sys.stdout.write(msgspec.json.encode(manifest).decode() + "\n")
    else:
        sys.stdout.write(describe(manifest))
    return 0


def describe(manifest: Manifest) -> str:
    """A bundle in a few lines."""
    model, geometry, split = manifest.model, manifest.geometry, manifest.split
    trunk = geometry.layer_count - split.head_layers - split.tail_layers
    lines = [
        f"{model.id} ({model.family}, {manifest.kind}), made by {manifest.producer}",
        f"  layers       {split.head_layers} head + {trunk} trunk + {split.tail_layers} tail",
        f"  hidden size  {geometry.hidden_size}",
        f"  vocabulary   {geometry.vocab_size:,}",
        f"  positions    {geometry.max_positions:,}",
        f"  fingerprint  {model.fingerprint} ({len(model.witnesses)} witnesses)",
    ]
    if model.revision:
        lines.append(f"  revision     {model.revision}")
    if model.lora:
        lines.append(f"  adapters     {', '.join(model.lora)}")
    for name, graph in manifest.graphs.items():
        lines.append(f"  {name:12} {graph.file}, {graph.weights}, {graph.attention}")
    if manifest.text is not None:
        chat = "with" if manifest.text.chat_template else "without"
        lines.append(f"  text         {manifest.text.tokenizer}, {chat} chat template")
    if check := manifest.verification:
        lines.append(
            f"  verified     on {check.tokens} tokens against PyTorch: KL {check.kl_divergence:.2g}"
            f" nats, top-1 {check.top1_agreement:.1%}, logits within {check.logits_max_error:.2g}"
        )
    lines.append("files (all present and unaltered)")
    lines += [f"  {entry.size:>14,}  {name}" for name, entry in sorted(manifest.files.items())]
    lines.append(f"  {sum(entry.size for entry in manifest.files.values()):>14,}  in all")
    return "\n".join(lines) + "\n"

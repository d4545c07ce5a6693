"""What the ``export`` command says when it is done: what was written, and how to serve it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from export.settings import ExportSettings
from lambda_split.bundle import Manifest
from lambda_split.image_bundle import ImageManifest

__all__ = ["image_summary", "serve_command", "text_next_step", "text_summary"]


def text_summary(out: Path, manifest: Manifest) -> str:
    """What was written of a language model."""
    size = sum(entry.size for entry in manifest.files.values()) / 1e6
    facts = [
        ("model", ", with ".join([manifest.model.id, *manifest.model.lora])),
        ("size", f"{size:.1f} MB, {manifest.graphs['head'].weights} weights"),
    ]
    for split in manifest.choices:
        facts += _split_facts(manifest.at(split))
    if len(manifest.choices) > 1:
        facts.append(("splits", "a device draws one of these for each session"))
    facts.append(("positions", f"up to {manifest.geometry.max_positions}"))
    return _lines(out, facts)


def _split_facts(manifest: Manifest) -> list[tuple[str, str]]:
    split, layers = manifest.split, manifest.geometry.layer_count
    counts = (
        f"{split.head_layers} in the head, {split.tail_layers} in the tail, "
        f"{len(split.trunk(layers))} for the trunk"
    )
    found = manifest.verification
    if found is None:
        return [("layers", counts)]
    verified = (
        f"against PyTorch on {found.tokens} tokens: relative error of the head "
        f"{found.head_relative_error:.2g}, KL divergence {found.kl_divergence:.2g} nats, same "
        f"most likely token at {found.top1_agreement:.1%}"
    )
    return [("layers", counts), ("verified", verified)]


def image_summary(out: Path, manifest: ImageManifest) -> str:
    """What was written of a text-to-image pipeline."""
    size = sum(entry.size for entry in manifest.files.values()) / 1e6
    weights = manifest.graphs[manifest.vae.graph].weights
    latents = manifest.latents
    facts = {
        "model": ", with ".join([manifest.model.id, *manifest.model.lora]),
        "size": f"{size:.1f} MB, {weights} weights",
        "split": f"{manifest.split}: {_device_parts(manifest)} on the device",
        "pictures": f"{latents.width} × {latents.height} unless told otherwise",
    }
    if (found := manifest.verification) is not None:
        cosine = min(encoder.cosine for encoder in found.encoders.values())
        facts["verified"] = (
            f"against PyTorch on {found.prompts} prompts and {found.pictures} pictures: cosine of "
            f"the encoders {cosine:.6f}, PSNR of the decoder {found.vae.psnr:.1f} dB"
        )
        if found.blocks is not None:
            facts["verified"] += f", relative error of the noise {found.blocks.noise:.2g}"
    return _lines(out, facts.items())


def _device_parts(manifest: ImageManifest) -> str:
    encoders, decoder = f"{len(manifest.encoders)} text encoders", f"a {manifest.vae.kind} decoder"
    if manifest.blocks is None:
        return f"{encoders} and {decoder}"
    return f"{encoders}, the UNet's first and last blocks and {decoder}"


def _lines(out: Path, facts: Iterable[tuple[str, str]]) -> str:
    lines = [f"wrote {out}", *(f"  {name:<10}{fact}" for name, fact in facts)]
    return "\n".join(lines) + "\n"


def text_next_step(model: str, settings: ExportSettings) -> str:
    """The command that serves the trunk of every split of the bundle."""
    splits = (settings.split, *settings.further_splits)
    layers = {
        "--head-layers": min(split.head_layers for split in splits),
        "--tail-layers": min(split.tail_layers for split in splits),
    }
    # 1 is serve's default
    options = [text for name, count in layers.items() if count != 1 for text in (name, str(count))]
    return serve_command(model, settings.lora, settings.revision, options)


def serve_command(
    model: str, lora: Sequence[str], revision: str | None, options: Sequence[str] = ()
) -> str:
    """The line that says how to serve a trunk."""
    command = ["lambda-split", "serve", model, *options]
    for adapter in lora:
        command += ["--lora", adapter]
    if revision is not None:
        command += ["--revision", revision]
    return f"serve its trunk with: {shlex.join(command)}\n"

"""The VAE decoder: load, find latents, compute the reference, trace, quantize, write, verify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.images.convolutional import write_convolutional_graph
from export.images.encoders import ExportedEncoder
from export.images.graphs import trace_decoder
from export.images.latents import (
    PromptEmbeddings,
    Watcher,
    artificial_latents,
    pipeline_latents,
)
from export.images.verification import compare_decoder, run_graph
from export.images.workplace import Workplace
from lambda_split.errors import CheckpointInvalid
from lambda_split.image_bundle import DecoderVerification, ImageGraph, Vae
from lambda_split.partition.pipelines import Component, load_vae, vae_scale_factor

__all__ = ["ExportedDecoder", "export_decoder"]

Floats = NDArray[np.float32]

DECODER = "vae_decoder"
_MEASURED = 2  # pictures that verification decodes; ranges come from others
_CALIBRATED = 6  # of artificial latents
_HEIGHT, _WIDTH = 24, 40  # of artificial latents: not square, as not all pictures are


@dataclass(frozen=True)
class ExportedDecoder:
    """What the decoder became; all for the manifest.

    Attributes:
        vae: Its scaling.
        graph: Its graph.
        scale_factor: Pixels a latent stands for, along each side.
        pictures: How many were compared.
        verification: What was measured on them.
    """

    vae: Vae
    graph: ImageGraph
    scale_factor: int
    pictures: int
    verification: DecoderVerification


def export_decoder(
    work: Workplace, encoders: Sequence[ExportedEncoder], *, watcher: Watcher | None = None
) -> ExportedDecoder:
    """Write the VAE's decoder.

    Args:
        work: The export.
        encoders: The pipeline's, whose outputs tell the denoiser what to draw for calibration.
        watcher: Sees the denoiser's runs while it draws.

    Raises:
        CheckpointError: it cannot be read.
        UsageError: the pipeline's pictures are no numbers to calibrate on.
        VerificationFailed: the graph is too far from PyTorch.
        OutputNotWritable: it cannot be written.
    """
    weights, progress = work.settings.weights, work.progress
    component = work.pipeline.vae(work.settings.vae)
    scaling = _scaling(component)
    progress.stage("loading the VAE", 1)
    vae = load_vae(work.pipeline, work.settings.vae, half=weights != "fp32")
    progress.advance()
    latents = [scaling.decoder_input(one) for one in _latents(work, vae, encoders, watcher)]
    measured = latents[-_MEASURED:]
    expected = _reference(vae, measured)
    progress.stage("tracing the VAE", 1)
    traced = trace_decoder(vae, work.pipeline.facts.latent_channels)
    progress.advance()
    feeds = [{traced.inputs["latents"]: one} for one in latents[:-_MEASURED]]
    file = write_convolutional_graph(work, DECODER, traced.model, component, feeds)
    graph = ImageGraph(file=file, weights=weights, inputs=traced.inputs, outputs=traced.outputs)
    progress.stage("verifying the VAE", 1)
    found = [run_graph(work.folder / file, graph, [one])["picture"] for one in measured]
    verification = compare_decoder(expected, found, weights)
    progress.advance()
    return ExportedDecoder(scaling, graph, vae_scale_factor(component), len(measured), verification)


def _scaling(component: Component) -> Vae:
    tiny = component.class_name == "AutoencoderTiny"
    factor = _number(component, "scaling_factor", 1.0 if tiny else 0.18215)
    if not 0 < factor <= 1e6:
        raise CheckpointInvalid(component.file("config.json"), f"scaling_factor is {factor}")
    return Vae(
        graph=DECODER,
        kind="tiny" if tiny else "full",
        scaling_factor=factor,
        shift_factor=_number(component, "shift_factor", 0.0),
        latents_mean=_numbers(component, "latents_mean"),
        latents_std=_numbers(component, "latents_std"),
    )


def _number(component: Component, name: str, default: float) -> float:
    found = component.config.get(name)
    value = default if found is None else found
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e6:
        raise CheckpointInvalid(component.file("config.json"), f"{name} is {value!r}")
    return float(value)


def _numbers(component: Component, name: str) -> tuple[float, ...] | None:
    found = component.config.get(name)
    if found is None:
        return None
    valid = isinstance(found, list) and all(
        isinstance(value, int | float) and abs(value) <= 1e6 for value in found
    )
    if not valid or not isinstance(found, list):
        raise CheckpointInvalid(component.file("config.json"), f"{name} is {str(found)[:80]}")
    return tuple(float(value) for value in found)


def _latents(
    work: Workplace, vae: nn.Module, encoders: Sequence[ExportedEncoder], watcher: Watcher | None
) -> list[Floats]:
    """Latents of unit variance: the last ones are for measuring, others for ranges."""
    settings, facts = work.settings, work.pipeline.facts
    if settings.weights != "int8":
        return artificial_latents(_MEASURED, facts.latent_channels, _HEIGHT, _WIDTH)
    if settings.calibration_steps == 0:
        count = _CALIBRATED + _MEASURED
        return artificial_latents(count, facts.latent_channels, _HEIGHT, _WIDTH)
    return pipeline_latents(
        work.pipeline,
        vae,
        _embeddings(encoders, zeros=work.pipeline.index.force_zeros_for_empty_prompt),
        steps=settings.calibration_steps,
        progress=work.progress,
        watcher=watcher,
    )


def _embeddings(encoders: Sequence[ExportedEncoder], *, zeros: bool) -> PromptEmbeddings:
    # The last prompt is the empty one: it is what the others are guided away from.
    hidden = np.concatenate([encoder.outputs["hidden"] for encoder in encoders], axis=-1)
    arrays = {"prompt_embeds": hidden}
    for encoder in encoders:
        if "pooled" in encoder.outputs:
            arrays["pooled_prompt_embeds"] = encoder.outputs["pooled"]
    found: PromptEmbeddings = {}
    for name, array in arrays.items():
        empty = np.zeros_like(array[-1:]) if zeros else array[-1:]
        found[name] = torch.from_numpy(array[:-1])
        found[f"negative_{name}"] = torch.from_numpy(empty)
    return found


@torch.inference_mode()
def _reference(vae: nn.Module, latents: Sequence[Floats]) -> list[Floats]:
    decode: Any = vae.decode
    return [decode(torch.from_numpy(one)).sample.numpy().copy() for one in latents]

"""The denoiser's first and last blocks, for the split ``deep``: reference, trace, write, verify.

In int8 their convolutions are quantized as the VAE decoder's, with ranges from the pipeline's own
steps, and the linear layers inside the blocks as the text encoders'. What embeds time and sizes
keeps its precision in fp16: it is computed once a step, and all numbers of both parts hang on it.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from export.images.block_graphs import told_of, trace_first, trace_last
from export.images.convolutional import write_convolutional_graph
from export.images.denoiser_runs import DenoiserRun, artificial_runs
from export.images.dynamic_int8 import replace_linear_layers
from export.images.encoders import ExportedEncoder
from export.images.verification import compare_blocks, open_written
from export.images.workplace import Workplace
from lambda_split.denoiser_blocks import BlocksVerification, DenoiserBlocks
from lambda_split.errors import UnsupportedFamily
from lambda_split.image_bundle import ImageGraph, ImageWeights
from lambda_split.partition.pipelines import Pipeline, UNetFacts, load_unet
from lambda_split.partition.pipelines.components import unsupported
from lambda_split.partition.pipelines.deep import (
    FirstBlocks,
    InnerBlocks,
    LastBlocks,
    Told,
    deep_geometry,
)

__all__ = ["FIRST", "LAST", "ExportedBlocks", "check_deep", "export_blocks"]

FIRST, LAST = "unet_first", "unet_last"
_MEASURED = 2  # runs that verification compares; ranges come from others
_CALIBRATED = 8


@dataclass(frozen=True)
class ExportedBlocks:
    """What the blocks became; all for the manifest.

    Attributes:
        entry: Their measures.
        graphs: By name.
        verification: What was measured.
    """

    entry: DenoiserBlocks
    graphs: dict[str, ImageGraph]
    verification: BlocksVerification


@dataclass(frozen=True, eq=False)
class _Reference:
    """What PyTorch computes for a run.

    Attributes:
        told: What the denoiser is told.
        features: What the first blocks send.
        last_feed: What the last blocks take, by role.
        noise: What they give.
    """

    told: Told
    features: torch.Tensor
    last_feed: dict[str, torch.Tensor]
    noise: torch.Tensor

    @property
    def skips(self) -> list[str]:
        """Roles of the skip connections."""
        return [role for role in self.last_feed if role.startswith("skip.")]


def check_deep(pipeline: Pipeline) -> None:
    """See whether a denoiser has blocks enough for the split, before anything large is read.

    Raises:
        UnsupportedFamily: it has not.
    """
    blocks = pipeline.unet.config.get("down_block_types")
    if not isinstance(blocks, list | tuple) or len(blocks) < 2:
        raise _cannot_be_cut(pipeline)


def export_blocks(
    work: Workplace, encoders: Sequence[ExportedEncoder], recorded: Sequence[DenoiserRun]
) -> ExportedBlocks:
    """Write the denoiser's first and last blocks.

    The whole UNet is in memory meanwhile: ranges and figures come from features of its inner part.

    Args:
        work: The export.
        encoders: The pipeline's, whose outputs artificial runs are told.
        recorded: Runs of the pipeline itself; artificial ones are taken where there are too few.

    Raises:
        CheckpointError: the UNet cannot be read, or has no deep split.
        VerificationFailed: the graphs are too far from PyTorch.
        OutputNotWritable: they cannot be written.
    """
    weights, progress, pipeline = work.settings.weights, work.progress, work.pipeline
    facts = pipeline.facts
    progress.stage("loading the UNet", 1)
    unet = load_unet(pipeline, half=weights != "fp32")
    geometry = deep_geometry(unet)
    if geometry is None:
        raise _cannot_be_cut(pipeline)
    progress.advance()
    first, inner, last = FirstBlocks(unet), InnerBlocks(unet), LastBlocks(unet)
    runs = _chosen(recorded) or _artificial(encoders, facts, weights)
    references = [_reference(first, inner, last, run, facts) for run in runs]
    if weights == "int8":
        for block in (first.block, last.block):
            replace_linear_layers(block, progress)
    skips = len(references[0].skips)
    progress.stage("tracing the denoiser's blocks", 2)
    traced = {FIRST: trace_first(first, facts, skips)}
    progress.advance()
    traced[LAST] = trace_last(last, facts, example=references[0].last_feed)
    progress.advance()
    graphs = {}
    for name, one in traced.items():
        feeds = [
            {one.inputs[role]: feed[role].numpy() for role in one.inputs}
            for feed in (
                (runs if name == FIRST else [each.last_feed for each in references])[:-_MEASURED]
            )
        ]
        file = write_convolutional_graph(
            work, name, one.model, pipeline.unet, feeds, halves_rest=True
        )
        graphs[name] = ImageGraph(
            file=file, weights=weights, inputs=one.inputs, outputs=one.outputs
        )
    gc.collect()  # traced programs refer to themselves
    progress.stage("verifying the denoiser's blocks", 1)
    measured = list(zip(runs, references, strict=True))[-_MEASURED:]
    verification = _verify(work, graphs, inner, measured)
    progress.advance()
    entry = DenoiserBlocks(
        first=FIRST,
        last=LAST,
        input_channels=geometry.input_channels,
        output_channels=geometry.output_channels,
        reduction=geometry.reduction,
        skips=skips,
    )
    return ExportedBlocks(entry, graphs, verification)


def _chosen(recorded: Sequence[DenoiserRun]) -> list[DenoiserRun]:
    """Runs from all over the recording, the last ones for measuring; none of too few."""
    wanted = min(_CALIBRATED + _MEASURED, len(recorded))
    if wanted <= _MEASURED:
        return []
    return [recorded[number * len(recorded) // wanted] for number in range(wanted)]


def _artificial(
    encoders: Sequence[ExportedEncoder], facts: UNetFacts, weights: ImageWeights
) -> list[DenoiserRun]:
    context = np.concatenate([encoder.outputs["hidden"] for encoder in encoders], axis=-1)
    pooled = [each.outputs["pooled"] for each in encoders if "pooled" in each.outputs]
    return artificial_runs(
        _MEASURED + (_CALIBRATED if weights == "int8" else 0),
        facts,
        torch.from_numpy(context),
        torch.from_numpy(pooled[0]) if pooled else None,
    )


@torch.inference_mode()
def _reference(
    first: FirstBlocks,
    inner: InnerBlocks,
    last: LastBlocks,
    run: DenoiserRun,
    facts: UNetFacts,
) -> _Reference:
    told = told_of(run, facts)
    features, embedding, *skips = first(run["latents"], told)
    from_trunk = inner(features, told)
    noise = last(from_trunk, embedding, run["context"], *skips)
    feed = {"features": from_trunk, "embedding": embedding, "context": run["context"]}
    feed |= {f"skip.{number}": skip for number, skip in enumerate(skips)}
    return _Reference(told, features, feed, noise)


@torch.inference_mode()
def _verify(
    work: Workplace,
    graphs: Mapping[str, ImageGraph],
    inner: InnerBlocks,
    measured: Sequence[tuple[DenoiserRun, _Reference]],
) -> BlocksVerification:
    first, last = (
        open_written(work.folder / graphs[name].file, graphs[name]) for name in (FIRST, LAST)
    )
    features, noise = [], []
    for run, expected in measured:
        given = {role: tensor.numpy() for role, tensor in run.items()}
        found = first(given)
        sent = found.pop("features")
        from_trunk = inner(torch.from_numpy(sent), expected.told).numpy()
        predicted = last({**given, **found, "features": from_trunk})["noise"]
        features.append((expected.features.numpy(), sent))
        noise.append((expected.noise.numpy(), predicted))
    return compare_blocks(features, noise, work.settings.weights)


def _cannot_be_cut(pipeline: Pipeline) -> UnsupportedFamily:
    return unsupported(pipeline.unet.class_name, "it has too few blocks for the split 'deep'")

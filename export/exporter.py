"""The steps of an export, in order; one part of the model is in memory at a time."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.attention import choose_attention
from export.progress import Progress
from export.settings import ExportSettings, GraphAttention
from export.staging import staged_folder, writing
from export.text_settings import read_text_files, write_text_files
from export.tokenizer_file import read_tokenizer
from export.tracing import TracedGraph, trace_head, trace_tail
from export.verification import (
    HeadReference,
    TailReference,
    compare,
    reference_head,
    reference_tail,
    run_head,
    run_tail,
    sample_text,
    sample_tokens,
)
from export.weight_file import WeightFile, write_graph
from export.weights import replace_weights
from lambda_split import __version__
from lambda_split.bundle import (
    SCHEMA,
    Geometry,
    Graph,
    KVGeometry,
    Manifest,
    ModelSource,
    Verification,
    describe_files,
    load_bundle,
    write_manifest,
)
from lambda_split.partition import Checkpoint, load_head, load_tail, open_checkpoint

__all__ = ["export_checkpoint"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Plan:
    """What all steps need to know."""

    checkpoint: Checkpoint
    settings: ExportSettings
    attention: GraphAttention
    positions: int
    folder: Path
    out: Path
    progress: Progress

    def kv(self, layers: range) -> tuple[KVGeometry, ...]:
        checkpoint = self.checkpoint
        return tuple(
            KVGeometry(heads=checkpoint.kv_heads, head_dim=checkpoint.head_dim) for _ in layers
        )


def export_checkpoint(
    model: str, out: str, settings: ExportSettings, *, progress: Progress
) -> Manifest:
    """Write a bundle; arguments and errors as :func:`export.export_bundle`."""
    checkpoint = open_checkpoint(model, revision=settings.revision, lora=settings.lora)
    settings.split.check(checkpoint.layer_count)
    positions = settings.positions(checkpoint.max_positions)
    geometry = KVGeometry(heads=checkpoint.kv_heads, head_dim=checkpoint.head_dim)
    attention = choose_attention(settings.attention, (geometry,))
    # absolute(): the name of "." or "bundle/.." is empty or wrong without it
    target = Path(out).expanduser().absolute()
    try:
        with staged_folder(target, overwrite=settings.overwrite) as folder:
            plan = _Plan(checkpoint, settings, attention, positions, folder, target, progress)
            return _write_bundle(plan)
    finally:
        progress.close()


def _write_bundle(plan: _Plan) -> Manifest:
    tokenizer = read_tokenizer(plan.checkpoint)
    token_ids = sample_tokens(
        tokenizer.encode(sample_text()), plan.checkpoint.vocab_size, plan.positions
    )
    text = read_text_files(plan.checkpoint, tokenizer)
    with writing(plan.out):
        write_text_files(text, plan.folder)
        weight_file = WeightFile(plan.folder)
    with weight_file:
        head, head_reference = _export_head(plan, weight_file, token_ids)
        gc.collect()  # traced programs refer to themselves; the tail needs the head's memory
        tail, tail_reference = _export_tail(plan, weight_file, head_reference)
        gc.collect()
        with writing(plan.out):
            weight_file.finish()
    verification = _verify(plan, head, head_reference, tail, tail_reference)
    source = _source(plan)
    with writing(plan.out):
        manifest = Manifest(
            schema=SCHEMA,
            kind="causal-lm",
            producer=f"lambda-split {__version__}",
            model=source,
            split=plan.settings.split,
            geometry=Geometry(
                hidden_size=plan.checkpoint.hidden_size,
                layer_count=plan.checkpoint.layer_count,
                vocab_size=plan.checkpoint.vocab_size,
                max_positions=plan.positions,
            ),
            graphs={"head": head, "tail": tail},
            text=text.settings,
            verification=verification,
            files=describe_files(plan.folder, sorted(p.name for p in plan.folder.iterdir())),
        )
        write_manifest(plan.folder, manifest)
    # Read as a device does, so that nothing appears which it would refuse; the digests were
    # computed from these files just now.
    return load_bundle(plan.folder, check_contents=False).manifest


def _export_head(
    plan: _Plan, weight_file: WeightFile, token_ids: Ints
) -> tuple[Graph, HeadReference]:
    """Load, compute the reference, pack, trace, write; what was loaded is released on return."""
    split, weights = plan.settings.split, plan.settings.weights
    plan.progress.stage("loading the head", 2)
    head = load_head(plan.checkpoint, split)
    plan.progress.advance()
    reference = reference_head(head, token_ids)
    plan.progress.advance()
    replace_weights(head, weights, token_embedding=head.embedding, progress=plan.progress)
    kv = plan.kv(split.head())
    plan.progress.stage("tracing the head", 1)
    traced = trace_head(head, plan.attention, kv)
    plan.progress.advance()
    return _write(plan, weight_file, "head.onnx", traced, kv), reference


def _export_tail(
    plan: _Plan, weight_file: WeightFile, head: HeadReference
) -> tuple[Graph, TailReference]:
    """As :func:`_export_head`."""
    checkpoint, split = plan.checkpoint, plan.settings.split
    plan.progress.stage("loading the tail", 2)
    tail = load_tail(checkpoint, split)
    plan.progress.advance()
    reference = reference_tail(tail, head.hidden, checkpoint.vocab_size)
    plan.progress.advance()
    replace_weights(tail, plan.settings.weights, token_embedding=None, progress=plan.progress)
    kv = plan.kv(split.tail(checkpoint.layer_count))
    plan.progress.stage("tracing the tail", 1)
    traced = trace_tail(tail, plan.attention, kv, checkpoint.hidden_size)
    plan.progress.advance()
    return _write(plan, weight_file, "tail.onnx", traced, kv), reference


def _write(
    plan: _Plan,
    weight_file: WeightFile,
    name: str,
    traced: TracedGraph,
    kv: tuple[KVGeometry, ...],
) -> Graph:
    with writing(plan.out):
        write_graph(traced.model, plan.folder / name, weight_file)
    return Graph(
        file=name,
        weights=plan.settings.weights,
        attention=plan.attention,
        kv=kv,
        inputs=traced.inputs,
        outputs=traced.outputs,
    )


def _verify(
    plan: _Plan,
    head: Graph,
    head_reference: HeadReference,
    tail: Graph,
    tail_reference: TailReference,
) -> Verification:
    plan.progress.stage("verifying", 2)
    hidden = run_head(plan.folder / head.file, head, head_reference)
    plan.progress.advance()
    logits = run_tail(plan.folder / tail.file, tail, tail_reference)
    plan.progress.advance()
    return compare(head_reference, hidden, tail_reference, logits, plan.settings.weights)


def _source(plan: _Plan) -> ModelSource:
    checkpoint = plan.checkpoint
    return ModelSource(
        id=checkpoint.id,
        revision=checkpoint.revision,
        family=checkpoint.family,
        lora=checkpoint.lora,
        fingerprint=checkpoint.fingerprint,
        witnesses=checkpoint.witnesses(plan.settings.split),
    )

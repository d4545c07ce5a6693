"""The steps of an export, in order; one part of the model is in memory at a time."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
    SplitGraphs,
    Verification,
    describe_files,
    load_bundle,
    write_manifest,
)
from lambda_split.partition import Checkpoint, load_head, load_tail, open_checkpoint
from lambda_split.split import Split

__all__ = ["export_checkpoint"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Plan:
    """What all steps need to know."""

    checkpoint: Checkpoint
    settings: ExportSettings
    splits: tuple[Split, ...]
    attention: GraphAttention
    positions: int
    folder: Path
    out: Path
    progress: Progress

    @property
    def head_depths(self) -> tuple[int, ...]:
        """Layers of each head, each once, the first split's first."""
        return tuple(dict.fromkeys(split.head_layers for split in self.splits))

    @property
    def tail_depths(self) -> tuple[int, ...]:
        """As :attr:`head_depths`."""
        return tuple(dict.fromkeys(split.tail_layers for split in self.splits))

    def name(self, part: Literal["head", "tail"], depth: int) -> str:
        """A graph's name: the first split's are ``head`` and ``tail``, others tell their layers."""
        first, *_ = self.head_depths if part == "head" else self.tail_depths
        return part if depth == first else f"{part}-{depth}"

    def kv(self, layers: int) -> tuple[KVGeometry, ...]:
        """The caches of that many layers."""
        checkpoint = self.checkpoint
        return (KVGeometry(heads=checkpoint.kv_heads, head_dim=checkpoint.head_dim),) * layers


@dataclass(frozen=True)
class _ExportedHead:
    """A written head, and what PyTorch's computes."""

    graph: Graph
    reference: HeadReference


@dataclass(frozen=True)
class _ExportedTail:
    """A written tail, and what PyTorch's computes from the head of each split that has it."""

    graph: Graph
    references: dict[Split, TailReference]


def export_checkpoint(
    model: str, out: str, settings: ExportSettings, *, progress: Progress
) -> Manifest:
    """Write a bundle; arguments and errors as :func:`export.export_bundle`."""
    checkpoint = open_checkpoint(model, revision=settings.revision, lora=settings.lora)
    splits = settings.splits(checkpoint.layer_count)
    positions = settings.positions(checkpoint.max_positions)
    geometry = KVGeometry(heads=checkpoint.kv_heads, head_dim=checkpoint.head_dim)
    attention = choose_attention(settings.attention, (geometry,))
    # absolute(): the name of "." or "bundle/.." is empty or wrong without it
    target = Path(out).expanduser().absolute()
    try:
        with staged_folder(target, overwrite=settings.overwrite) as folder:
            plan = _Plan(
                checkpoint, settings, splits, attention, positions, folder, target, progress
            )
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
        heads = _export_heads(plan, weight_file, token_ids)
        gc.collect()  # traced programs refer to themselves; the tails need the heads' memory
        tails = _export_tails(plan, weight_file, heads)
        gc.collect()
        with writing(plan.out):
            weight_file.finish()
    verifications = _verify(plan, heads, tails)
    source = _source(plan)
    with writing(plan.out):
        manifest = Manifest(
            schema=SCHEMA,
            kind="causal-lm",
            producer=f"lambda-split {__version__}",
            model=source,
            split=plan.splits[0],
            geometry=Geometry(
                hidden_size=plan.checkpoint.hidden_size,
                layer_count=plan.checkpoint.layer_count,
                vocab_size=plan.checkpoint.vocab_size,
                max_positions=plan.positions,
            ),
            graphs={
                **{plan.name("head", depth): one.graph for depth, one in heads.items()},
                **{plan.name("tail", depth): one.graph for depth, one in tails.items()},
            },
            text=text.settings,
            verification=verifications[0],
            splits=_choices(plan, verifications),
            files=describe_files(plan.folder, sorted(p.name for p in plan.folder.iterdir())),
        )
        write_manifest(plan.folder, manifest)
    # Read as a device does, so that nothing appears which it would refuse; the digests were
    # computed from these files just now.
    return load_bundle(plan.folder, check_contents=False).manifest


def _choices(plan: _Plan, verifications: Sequence[Verification]) -> tuple[SplitGraphs, ...]:
    if len(plan.splits) == 1:
        return ()
    return tuple(
        SplitGraphs(
            split=split,
            head=plan.name("head", split.head_layers),
            tail=plan.name("tail", split.tail_layers),
            verification=found,
        )
        for split, found in zip(plan.splits, verifications, strict=True)
    )


def _export_heads(
    plan: _Plan, weight_file: WeightFile, token_ids: Ints
) -> dict[int, _ExportedHead]:
    """Load, compute references, pack, trace, write; what was loaded is released on return.

    Only the deepest head is loaded, and its weights are packed once: the others are parts of it.
    """
    depths = plan.head_depths
    plan.progress.stage("loading the head", 1 + len(depths))
    deepest = load_head(plan.checkpoint, Split(max(depths), 0))
    plan.progress.advance()
    references: dict[int, HeadReference] = {}
    for depth in depths:
        references[depth] = reference_head(deepest.shallower(range(depth)), token_ids)
        plan.progress.advance()
    weights = plan.settings.weights
    replace_weights(deepest, weights, token_embedding=deepest.embedding, progress=plan.progress)
    plan.progress.stage("tracing the head", len(depths))
    exported: dict[int, _ExportedHead] = {}
    for depth in depths:
        kv = plan.kv(depth)
        traced = trace_head(deepest.shallower(range(depth)), plan.attention, kv)
        graph = _write(plan, weight_file, plan.name("head", depth), traced, kv)
        exported[depth] = _ExportedHead(graph, references[depth])
        plan.progress.advance()
    return exported


def _export_tails(
    plan: _Plan, weight_file: WeightFile, heads: dict[int, _ExportedHead]
) -> dict[int, _ExportedTail]:
    """As :func:`_export_heads`."""
    checkpoint, depths = plan.checkpoint, plan.tail_depths

    def layers(depth: int) -> range:
        return Split(0, depth).tail(checkpoint.layer_count)

    plan.progress.stage("loading the tail", 1 + len(plan.splits))
    deepest = load_tail(checkpoint, Split(0, max(depths)))
    plan.progress.advance()
    references: dict[Split, TailReference] = {}
    for split in plan.splits:
        tail = deepest.shallower(layers(split.tail_layers))
        hidden = heads[split.head_layers].reference.hidden
        references[split] = reference_tail(tail, hidden, checkpoint.vocab_size)
        del tail  # it holds the weights that are replaced next
        plan.progress.advance()
    replace_weights(deepest, plan.settings.weights, token_embedding=None, progress=plan.progress)
    plan.progress.stage("tracing the tail", len(depths))
    exported: dict[int, _ExportedTail] = {}
    for depth in depths:
        kv = plan.kv(depth)
        tail = deepest.shallower(layers(depth))
        traced = trace_tail(tail, plan.attention, kv, checkpoint.hidden_size)
        graph = _write(plan, weight_file, plan.name("tail", depth), traced, kv)
        used = {split: found for split, found in references.items() if split.tail_layers == depth}
        exported[depth] = _ExportedTail(graph, used)
        plan.progress.advance()
    return exported


def _write(
    plan: _Plan,
    weight_file: WeightFile,
    name: str,
    traced: TracedGraph,
    kv: tuple[KVGeometry, ...],
) -> Graph:
    file = f"{name}.onnx"
    with writing(plan.out):
        write_graph(traced.model, plan.folder / file, weight_file)
    return Graph(
        file=file,
        weights=plan.settings.weights,
        attention=plan.attention,
        kv=kv,
        inputs=traced.inputs,
        outputs=traced.outputs,
    )


def _verify(
    plan: _Plan, heads: dict[int, _ExportedHead], tails: dict[int, _ExportedTail]
) -> list[Verification]:
    """Compare each split with PyTorch, in the splits' order."""
    plan.progress.stage("verifying", len(heads) + len(plan.splits))
    hidden: dict[int, Floats] = {}
    for depth, head in heads.items():
        hidden[depth] = run_head(plan.folder / head.graph.file, head.graph, head.reference)
        plan.progress.advance()
    found: list[Verification] = []
    for split in plan.splits:
        head, tail = heads[split.head_layers], tails[split.tail_layers]
        reference = tail.references[split]
        logits = run_tail(plan.folder / tail.graph.file, tail.graph, reference)
        states = hidden[split.head_layers]
        found.append(compare(head.reference, states, reference, logits, plan.settings.weights))
        plan.progress.advance()
    return found


def _source(plan: _Plan) -> ModelSource:
    checkpoint = plan.checkpoint
    return ModelSource(
        id=checkpoint.id,
        revision=checkpoint.revision,
        family=checkpoint.family,
        lora=checkpoint.lora,
        fingerprint=checkpoint.fingerprint,
        witnesses=checkpoint.witnesses(_witnessed(plan)),
    )


def _witnessed(plan: _Plan) -> Split:
    """The split whose trunk the witnesses are of: layers that the trunks of all splits have."""
    common = Split(max(plan.head_depths), max(plan.tail_depths))
    if common.head_layers + common.tail_layers < plan.checkpoint.layer_count:
        return common
    return plan.splits[0]  # there are none; a server compares those that it has

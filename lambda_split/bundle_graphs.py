"""A language model's ONNX graphs as a manifest describes them, and which of them a split uses."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from lambda_split.bundle_files import Count, Size
from lambda_split.errors import ManifestInvalid, SplitImpossible
from lambda_split.split import Split

__all__ = [
    "Graph",
    "KVGeometry",
    "SplitGraphs",
    "Verification",
    "WeightFormat",
    "check_splits",
]

WeightFormat = Literal["fp32", "fp16", "int8", "int4"]


class KVGeometry(msgspec.Struct, frozen=True, kw_only=True):
    """One layer's key-value cache: arrays of (1, heads, positions, head_dim)."""

    heads: Size
    head_dim: Size


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """One ONNX graph and how to feed it.

    Attributes:
        file: The ``.onnx`` file, relative to the bundle.
        weights: The format its weights are stored in.
        attention: ``shared-kv``: past and present are the same preallocated buffer of any capacity
            (GroupQueryAttention); ``concat-kv``: the graph returns past with the new positions
            appended.
        kv: The cache of each of its layers, in order; empty where it has no layers.
        inputs: Role to the graph's input name. Roles: ``token_ids`` int64 (1, T), ``hidden``
            float32 (1, T, W), ``start`` int64 (1,) the first position of this call,
            ``logit_positions`` int64 (N,) the rows of this call whose logits are wanted,
            ``past.<i>.key`` and ``past.<i>.value`` float32 (1, heads, capacity, head_dim).
        outputs: Role to output name: ``hidden`` float32 (1, T, W), ``logits`` float32 (1, N, V),
            ``present.<i>.key`` and ``present.<i>.value``.
    """

    file: str
    weights: WeightFormat
    attention: Literal["shared-kv", "concat-kv"]
    kv: tuple[KVGeometry, ...]
    inputs: dict[str, str]
    outputs: dict[str, str]


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """How far the exported graphs are from PyTorch, measured at export.

    Attributes:
        tokens: Positions that were compared.
        head_max_error: Largest absolute difference of the head's hidden states.
        head_relative_error: Root-mean-square difference over root-mean-square value.
        logits_max_error: Largest absolute difference of the tail's logits.
        kl_divergence: Mean KL(PyTorch ‖ ONNX) of the next-token distributions, in nats.
        top1_agreement: Share of positions whose most likely token is the same.
    """

    tokens: Count
    head_max_error: float
    head_relative_error: float
    logits_max_error: float
    kl_divergence: float
    top1_agreement: float


class SplitGraphs(msgspec.Struct, frozen=True, kw_only=True):
    """One of several splits of a bundle.

    Splits of equal depth on one side name the same graph there, and all graphs share their weights.

    Attributes:
        split: The split.
        head: Name of its head among the manifest's graphs.
        tail: Name of its tail.
        verification: How far this pair is from PyTorch.
    """

    split: Split
    head: str
    tail: str
    verification: Verification | None = None


def check_splits(
    path: pathlib.Path,
    split: Split,
    splits: Sequence[SplitGraphs],
    graphs: Mapping[str, Graph],
    layer_count: int,
) -> None:
    """Check the splits that a device may choose from.

    Args:
        path: The manifest, for messages.
        split: What it says of runtimes that do not choose.
        splits: What it says of those that do; may be empty.
        graphs: Its graphs by name.
        layer_count: The model's layers.

    Raises:
        ManifestInvalid: a split does not fit the model or its graphs, or is there twice; or
            ``split`` is not among them.
    """
    seen: set[Split] = set()
    for one in splits:
        reason = _fault(one, graphs, layer_count)
        if one.split in seen:
            reason = "it is listed twice"
        if reason is not None:
            raise ManifestInvalid(str(path), f"the split {one.split} in 'splits': {reason}")
        seen.add(one.split)
    usual = {(one.split, one.head, one.tail) for one in splits}
    if splits and (split, "head", "tail") not in usual:
        reason = f"'splits' lacks the split {split} of the graphs 'head' and 'tail'"
        raise ManifestInvalid(str(path), reason)
    heads, tails = ({getattr(one, part) for one in splits} for part in ("head", "tail"))
    if both := sorted(heads & tails):
        reason = f"'splits' takes the graph {both[0]!r} for a head and for a tail"
        raise ManifestInvalid(str(path), reason)


def _fault(one: SplitGraphs, graphs: Mapping[str, Graph], layer_count: int) -> str | None:
    try:
        one.split.check(layer_count)
    except SplitImpossible as error:
        return str(error)
    for name, layers in ((one.head, one.split.head_layers), (one.tail, one.split.tail_layers)):
        graph = graphs.get(name)
        if graph is None:
            return f"there is no graph {name!r}"
        if len(graph.kv) != layers:
            return f"the graph {name!r} has {len(graph.kv)} layers, not {layers}"
    return None

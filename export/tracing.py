"""From a head or tail in PyTorch to an ONNX graph with the roles that a manifest names.

The graphs take the first position of a call, ``start``, and no mask: positions, rotary angles,
masks and the operator's lengths follow from it and the number of tokens, inside the graph.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import nn

from export.attention import ConcatKV, SharedKV, TracedKV, during_trace
from export.settings import GraphAttention
from lambda_split import __version__
from lambda_split.bundle import KVGeometry
from lambda_split.partition import Head, LayerStack, Masks, Tail

__all__ = ["OPSET", "TracedGraph", "quiet_exporter", "tidy", "trace_head", "trace_tail"]

# What the exporter translates to by itself; later ones are conversions of it, and every runtime of
# the last years reads this one.
OPSET = 18

# The exporter takes sizes 0 and 1 for constants, so the examples are larger, and all different.
_TOKENS = 5
_PAST = 7
_CAPACITY = 11
_WANTED = 3

_NO_MASKS = Masks(None, None)


@dataclass(frozen=True)
class TracedGraph:
    """An ONNX graph and the names of its inputs and outputs by role (here they are the same)."""

    model: ir.Model
    inputs: dict[str, str]
    outputs: dict[str, str]


class _Device(nn.Module):
    """What head and tail graphs share: positions and the cache from ``start`` and T."""

    def __init__(self, stack: LayerStack, attention: GraphAttention) -> None:
        super().__init__()
        self.numbers = stack.numbers
        self.windows = stack.windows
        self.attention = attention

    def state(
        self, start: torch.Tensor, tokens: int, past: list[torch.Tensor]
    ) -> tuple[torch.Tensor, TracedKV]:
        """Positions int64 (1, T) and the traced cache."""
        positions = (start + torch.arange(tokens))[None, :]
        if self.attention == "shared-kv":
            return positions, SharedKV(past, start, tokens, self.numbers, self.windows)
        return positions, ConcatKV(past, positions, self.numbers, self.windows)


class _HeadGraph(_Device):
    def __init__(self, head: Head, attention: GraphAttention) -> None:
        super().__init__(head.stack, attention)
        self.head = head

    def forward(
        self, token_ids: torch.Tensor, start: torch.Tensor, past: list[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        positions, cache = self.state(start, token_ids.shape[1], past)
        with during_trace(self.head.stack, cache):
            hidden = self.head(token_ids, positions, cache, _NO_MASKS)
        return hidden, *cache.present()


class _TailGraph(_Device):
    def __init__(self, tail: Tail, attention: GraphAttention) -> None:
        super().__init__(tail.stack, attention)
        self.tail = tail

    def forward(
        self,
        hidden: torch.Tensor,
        start: torch.Tensor,
        logit_positions: torch.Tensor,
        past: list[torch.Tensor],
    ) -> tuple[torch.Tensor, ...]:
        positions, cache = self.state(start, hidden.shape[1], past)
        with during_trace(self.tail.stack, cache):
            logits = self.tail(hidden, positions, cache, _NO_MASKS, logit_positions)
        return logits, *cache.present()


def trace_head(head: Head, attention: GraphAttention, kv: tuple[KVGeometry, ...]) -> TracedGraph:
    """Trace a head whose weights :func:`export.weights.replace_weights` has put into a format.

    Args:
        head: The head.
        attention: The kind of cache.
        kv: The cache of each of its layers.
    """
    inputs: dict[str, torch.Tensor] = {"token_ids": torch.zeros(1, _TOKENS, dtype=torch.int64)}
    module = _HeadGraph(head, attention)
    return _trace(
        module, inputs, {"token_ids": {1: "tokens"}}, result="hidden", attention=attention, kv=kv
    )


def trace_tail(
    tail: Tail, attention: GraphAttention, kv: tuple[KVGeometry, ...], hidden_size: int
) -> TracedGraph:
    """Trace a tail; arguments as :func:`trace_head`.

    Args:
        tail: The tail.
        attention: The kind of cache.
        kv: The cache of each of its layers.
        hidden_size: Width of the hidden states.
    """
    inputs = {
        "hidden": torch.zeros(1, _TOKENS, hidden_size),
        "logit_positions": torch.arange(_WANTED),
    }
    axes = {"hidden": {1: "tokens"}, "logit_positions": {0: "wanted"}}
    return _trace(
        _TailGraph(tail, attention), inputs, axes, result="logits", attention=attention, kv=kv
    )


def _trace(
    module: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    axes: Mapping[str, dict[int, str]],
    *,
    result: str,
    attention: GraphAttention,
    kv: tuple[KVGeometry, ...],
) -> TracedGraph:
    shared = attention == "shared-kv"
    length, axis = (_CAPACITY, "capacity") if shared else (_PAST, "past")
    past = [torch.zeros(1, layer.heads, length, layer.head_dim) for layer in kv for _ in range(2)]
    parts = [f"{index}.{what}" for index in range(len(kv)) for what in ("key", "value")]
    first, *others = inputs
    # The order of the modules' arguments: the first input, start, other inputs, past.
    names = [first, "start", *others, *(f"past.{part}" for part in parts)]
    outputs = [result, *(f"present.{part}" for part in parts)]
    with quiet_exporter():
        program = torch.onnx.export(
            module.eval(),
            (
                inputs[first],
                torch.tensor([_PAST]),
                *(inputs[name] for name in others),
                past,
            ),
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=(
                axes[first],
                {},
                *(axes[name] for name in others),
                [{2: axis} for _ in past],
            ),
            verbose=False,
        )
    if program is None:  # only where a file name was given
        raise RuntimeError("the exporter returned no program")
    tidy(program.model)
    return TracedGraph(
        program.model,
        {name: name for name in names},
        {name: name for name in outputs},
    )


def tidy(model: ir.Model) -> None:
    """Remove the source lines and module paths that the exporter notes at each node and value.

    They say nothing to a runtime, and would tell the exporting machine's folders to whoever gets
    the bundle.
    """
    model.producer_name = "lambda-split"
    model.producer_version = __version__
    model.metadata_props.clear()
    model.doc_string = None
    model.graph.metadata_props.clear()
    model.graph.doc_string = None
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        _forget(value)
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            _forget(value)


def _forget(value: ir.Value) -> None:
    value.metadata_props.clear()
    value.doc_string = None


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Within, the exporter is silent on optional packages, and on axes of one name: meant."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

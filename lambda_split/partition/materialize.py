"""The library's modules, empty, and their tensors read from a checkpoint one at a time."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from lambda_split.errors import CheckpointInvalid, TensorMismatch, TensorMissing
from lambda_split.partition.checkpoint import Checkpoint
from lambda_split.partition.families import attention_function, find_family
from lambda_split.partition.layers import LayerStack

__all__ = ["TensorSource", "building", "empty_model", "fill", "layer_stack"]

_READABLE = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class TensorSource(Protocol):
    """Where tensors are read by name: a checkpoint, or a part of a pipeline."""

    @property
    def tensor_names(self) -> tuple[str, ...]: ...  # noqa: D102 - what it says

    def read(
        self, names: Iterable[str], *, part: str = "caller"
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Each named tensor; see :meth:`lambda_split.partition.tensors.Shards.read`."""
        ...


@contextmanager
def building(path: str = "config.json") -> Iterator[None]:
    """Within, what the library's constructors raise is an error of the config at ``path``."""
    try:
        yield
    except Exception as error:  # the library's constructors raise whatever a setting leads to
        raise CheckpointInvalid(path, str(error) or type(error).__name__) from error


def empty_model(checkpoint: Checkpoint, attention: str | None) -> nn.Module:
    """The family's causal language model on the meta device: all modules, no memory.

    Args:
        checkpoint: The model.
        attention: A name in transformers' attention-function registry; the family's own by default.

    Raises:
        CheckpointInvalid: the library cannot build a model with this config.
    """
    # A copy each, so that parts of one checkpoint can use different attention functions.
    config: PreTrainedConfig = copy.deepcopy(checkpoint.config)
    config._attn_implementation = "eager"  # noqa: SLF001 - how the library spells this setting
    with building(), torch.device("meta"):
        model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        model: nn.Module = model_class(config)
    # Layers look it up at each call.
    config._attn_implementation = attention or attention_function(config)  # noqa: SLF001 - as above
    return model


def layer_stack(
    checkpoint: Checkpoint, model: nn.Module, layers: range
) -> tuple[LayerStack, dict[str, nn.Module]]:
    """Take some layers out of an empty model.

    Returns:
        The stack, and the layers by their tensors' prefix, to be filled.

    Raises:
        CheckpointInvalid: the library cannot build a rotary embedding with this config.
    """
    family = find_family(checkpoint.family)
    base = model.get_submodule(family.base)
    all_layers = base.get_submodule(family.layers)
    chosen = {
        f"{family.base}.{family.layers}.{number}": all_layers.get_submodule(str(number))
        for number in layers
    }
    config: Any = model.config
    rotary: Any = None
    if family.rotary is not None and len(layers) > 0:
        # The empty model's frequencies are on the meta device: make them again, in memory.
        with building():
            rotary = type(base.get_submodule(family.rotary))(config)
        # Fixed to what short sequences use, whatever the positions; see families.max_positions.
        if family.rotary_by_layer_type:
            rotary.rope_type = dict.fromkeys(rotary.rope_type, "default")
        else:
            rotary.rope_type = "default"
    windows = tuple(checkpoint.windows[number] for number in layers)
    stack = LayerStack(
        config,
        layers,
        list(chosen.values()),
        rotary,
        windows,
        rotary_by_layer_type=family.rotary_by_layer_type,
    )
    return stack, chosen


def fill(
    source: TensorSource,
    part: str,
    modules: Mapping[str, nn.Module],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    stored_as: Mapping[str, str] | None = None,
) -> None:
    """Read the modules' tensors; at most one more than the part itself is in memory at a time.

    Args:
        source: Where to read.
        part: What is filled, for errors: ``head``, ``trunk``, ``unet`` …
        modules: Empty modules by the prefix of their tensors' names.
        dtype: What floating-point tensors become.
        device: Where they go.
        stored_as: For tensors that are stored under another name: that name.

    Raises:
        TensorMissing: the checkpoint lacks some.
        TensorMismatch: one has another shape than the config says, or is not floating-point.
        CheckpointInvalid: a shard is missing or malformed.
    """
    shapes = {
        f"{prefix}.{name}": tensor.shape
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    targets = {(stored_as or {}).get(name, name): name for name in shapes}
    missing = tuple(sorted(targets.keys() - set(source.tensor_names)))
    if missing:
        raise TensorMissing(part, missing)
    values: dict[str, torch.Tensor] = {}
    for stored, tensor in source.read(targets, part=part):
        name = targets[stored]
        if tensor.shape != shapes[name] or tensor.dtype not in _READABLE:
            found = f"{list(tensor.shape)} of {tensor.dtype}"
            raise TensorMismatch(stored, f"{list(shapes[name])} of floating-point numbers", found)
        # A copy even if nothing changes: the file may be replaced or truncated while it is mapped.
        values[name] = tensor.to(
            device=device, dtype=dtype, copy=True, memory_format=torch.contiguous_format
        )
        del tensor  # before the next one is read
    for prefix, module in modules.items():
        state = {name: values.pop(f"{prefix}.{name}") for name in module.state_dict()}
        module.load_state_dict(state, strict=True, assign=True)

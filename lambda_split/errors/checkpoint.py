"""Something is wrong with the model that is exported or served."""

from __future__ import annotations

from dataclasses import dataclass

from lambda_split.counting import counted
from lambda_split.errors.base import LambdaSplitError

__all__ = [
    "AdapterError",
    "CheckpointError",
    "CheckpointInvalid",
    "CheckpointNotFound",
    "SchedulerUnsupported",
    "SplitImpossible",
    "TensorMismatch",
    "TensorMissing",
    "UnsafeWeights",
    "UnsupportedFamily",
]


class CheckpointError(LambdaSplitError):
    """Something is wrong with the model that is exported or served."""


@dataclass(eq=False)
class CheckpointNotFound(CheckpointError):
    """Neither a local folder nor a reachable Hugging Face id."""

    model: str
    reason: str

    def __str__(self) -> str:
        return f"cannot find the model {self.model!r}: {self.reason}"


@dataclass(eq=False)
class CheckpointInvalid(CheckpointError):
    """A file of the checkpoint is malformed."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"the checkpoint file {self.path} is invalid: {self.reason}"


@dataclass(eq=False)
class UnsafeWeights(CheckpointError):
    """The checkpoint has pickled weights only, which run code when read."""

    model: str

    def __str__(self) -> str:
        return (
            f"{self.model} has no safetensors files, only pickled weights, which can run code "
            "when read: convert it to safetensors first"
        )


@dataclass(eq=False)
class UnsupportedFamily(CheckpointError):
    """The architecture cannot be cut yet."""

    model_type: str
    supported: tuple[str, ...]
    reason: str = ""
    hint: str = (
        "describe where its layers, embedding, norm and rotary embedding sit in "
        "lambda_split/partition/families.py"
    )

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return (
            f"models of type {self.model_type!r} are not supported{why}; supported: "
            f"{', '.join(self.supported)}. To add one, {self.hint}"
        )


@dataclass(eq=False)
class TensorMissing(CheckpointError):
    """Tensors that the wanted part needs are not in the checkpoint."""

    part: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.names[:3]) + (" …" if len(self.names) > 3 else "")
        return (
            f"the checkpoint lacks {len(self.names)} tensor(s) that the {self.part} needs: {shown}"
        )


@dataclass(eq=False)
class TensorMismatch(CheckpointError):
    """A tensor's shape or dtype contradicts the config."""

    name: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"tensor {self.name} is {self.found}, the config says {self.expected}"


@dataclass(eq=False)
class SplitImpossible(CheckpointError):
    """More layers were asked for than the model has."""

    head_layers: int
    tail_layers: int
    layer_count: int

    def __str__(self) -> str:
        return (
            f"cannot cut {self.head_layers} head and {self.tail_layers} tail layers from a model "
            f"of {counted(self.layer_count, 'layer')}: both must be at least 0 and leave the trunk "
            "at least 1"
        )


@dataclass(eq=False)
class SchedulerUnsupported(CheckpointError):
    """The model's scheduler_config.json asks for something that no solver here does."""

    field: str
    found: str
    supported: str

    def __str__(self) -> str:
        return (
            f"the model's scheduler has {self.field} {self.found}, which is not supported: "
            f"{self.supported}"
        )


@dataclass(eq=False)
class AdapterError(CheckpointError):
    """A LoRA adapter cannot be merged."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"cannot merge the adapter {self.path}: {self.reason}"

"""What a caller of export decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lambda_split.bundle import WeightFormat
from lambda_split.errors import UsageError
from lambda_split.split import Split

__all__ = ["AttentionChoice", "ExportSettings", "GraphAttention"]

GraphAttention = Literal["shared-kv", "concat-kv"]
AttentionChoice = Literal["auto", "shared-kv", "concat-kv"]


@dataclass(frozen=True)
class ExportSettings:
    """How a checkpoint becomes a bundle.

    Attributes:
        split: How many layers the head and the tail keep; one each by default.
        further_splits: More splits of the same bundle, for devices that draw one for each session.
        weights: How the weight matrices are stored; see ``export/weights.py``.
        attention: ``shared-kv`` writes into one preallocated cache (onnxruntime's
            GroupQueryAttention); ``concat-kv`` uses standard ONNX operators only; ``auto`` takes
            the first where its kernel can express the model's attention.
        lora: Folders of adapters that are merged into the weights, in order.
        revision: Commit, branch or tag of a Hub model.
        max_positions: Fewer positions than the model has, to bound a device's cache.
        overwrite: Replace an existing output folder.
    """

    split: Split = field(default_factory=Split)
    weights: WeightFormat = "int4"
    attention: AttentionChoice = "auto"
    lora: tuple[str, ...] = ()
    revision: str | None = None
    max_positions: int | None = None
    overwrite: bool = False
    further_splits: tuple[Split, ...] = ()

    def splits(self, layer_count: int) -> tuple[Split, ...]:
        """All splits of the bundle, given the model's layers; ``split`` is the first.

        Raises:
            SplitImpossible: one leaves the trunk no layer.
            UsageError: one is given twice.
        """
        splits = (self.split, *self.further_splits)
        for index, split in enumerate(splits):
            split.check(layer_count)
            if split in splits[:index]:
                raise UsageError(f"the split {split} is given twice")
        return splits

    def positions(self, model_positions: int) -> int:
        """The bundle's positions, given those of the model.

        Raises:
            UsageError: more were asked for than the model has, or fewer than one.
        """
        if self.max_positions is None:
            return model_positions
        if not 1 <= self.max_positions <= model_positions:
            raise UsageError(
                f"max positions must be between 1 and the model's {model_positions}, "
                f"not {self.max_positions}"
            )
        return self.max_positions

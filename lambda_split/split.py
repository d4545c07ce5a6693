"""Where a model is cut."""

from __future__ import annotations

import msgspec

from lambda_split.errors import SplitImpossible

__all__ = ["Split"]


class Split(msgspec.Struct, frozen=True):
    """How many decoder layers stay on the device.

    Attributes:
        head_layers: The first *h* layers, run by the head; 0 leaves it the embedding only.
        tail_layers: The last *t* layers, run by the tail; 0 leaves it norm and LM head only.
    """

    head_layers: int = 1
    tail_layers: int = 1

    def __str__(self) -> str:
        """As on the command line: ``1,1``."""
        return f"{self.head_layers},{self.tail_layers}"

    def check(self, layer_count: int) -> None:
        """Raise :class:`SplitImpossible` unless the trunk keeps at least one layer."""
        if (
            self.head_layers < 0
            or self.tail_layers < 0
            or self.head_layers + self.tail_layers >= layer_count
        ):
            raise SplitImpossible(self.head_layers, self.tail_layers, layer_count)

    def head(self) -> range:
        """The head's layer numbers."""
        return range(self.head_layers)

    def trunk(self, layer_count: int) -> range:
        """The trunk's layer numbers."""
        return range(self.head_layers, layer_count - self.tail_layers)

    def tail(self, layer_count: int) -> range:
        """The tail's layer numbers."""
        return range(layer_count - self.tail_layers, layer_count)

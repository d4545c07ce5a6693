"""A run of consecutive decoder layers: the library's own modules, called one after another."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedConfig

from lambda_split.errors import UsageError
from lambda_split.partition.cache import KVCache
from lambda_split.partition.masks import Masks

__all__ = ["LayerStack"]


class LayerStack(nn.Module):
    """Decoder layers ``numbers`` of a model and the rotary embedding that they share.

    Args:
        config: The config that the layers were built with. Its ``_attn_implementation`` names the
            attention function that they look up at each call.
        numbers: The layers' numbers in the whole model.
        layers: The decoder layers, in order.
        rotary: The rotary embedding; None for families without.
        windows: For each layer of ``numbers``, its sliding window or None.
        rotary_by_layer_type: The rotary embedding differs for full and sliding layers.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        numbers: range,
        layers: list[nn.Module],
        rotary: nn.Module | None,
        windows: tuple[int | None, ...],
        *,
        rotary_by_layer_type: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.numbers = numbers
        self.layers = nn.ModuleList(layers)
        self.rotary = rotary
        self.windows = windows
        self._rotary_by_layer_type = rotary_by_layer_type

    @property
    def window(self) -> int | None:
        """The sliding window of those layers that have one (a model has one size), or None."""
        return next((window for window in self.windows if window is not None), None)

    def part(self, layers: range) -> LayerStack:
        """A stack of some of the layers: the same modules, so that no weight is held twice.

        Args:
            layers: A sub-range of the layers held; may be empty.

        Raises:
            UsageError: ``layers`` are not all held.
        """
        indices = self._indices(layers)
        return LayerStack(
            self.config,
            layers,
            [self.layers[index] for index in indices],
            self.rotary if len(layers) > 0 else None,
            tuple(self.windows[index] for index in indices),
            rotary_by_layer_type=self._rotary_by_layer_type,
        )

    def _indices(self, wanted: range) -> range:
        first = wanted.start - self.numbers.start
        if wanted.step != 1 or first < 0 or first + len(wanted) > len(self.numbers):
            raise UsageError(f"layers {wanted} were asked for, {self.numbers} are loaded")
        return range(first, first + len(wanted))

    def forward(
        self,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        cache: KVCache | None,
        masks: Masks,
        layers: range | None = None,
        **attention_arguments: object,
    ) -> torch.Tensor:
        """Run the layers, or a part of them.

        Args:
            hidden: (B, T, W).
            positions: int64 (B, T).
            cache: Where keys and values go; None to attend to the chunk alone.
            masks: What each kind of layer may attend to.
            layers: A sub-range of the layers held; all by default.
            **attention_arguments: Handed to the attention function as they are.

        Returns:
            Hidden states (B, T, W), dtype as ``hidden``.

        Raises:
            UsageError: ``layers`` are not all held.
        """
        indices = self._indices(self.numbers if layers is None else layers)
        if len(indices) == 0:
            return hidden
        kinds = {self.windows[index] is not None for index in indices}
        arguments = self._position_arguments(hidden, positions, kinds)
        for index in indices:
            is_sliding = self.windows[index] is not None
            hidden = self.layers[index](
                hidden,
                attention_mask=masks.sliding if is_sliding else masks.full,
                past_key_values=cache,
                **arguments[is_sliding],
                **attention_arguments,
            )
        return hidden

    def _position_arguments(
        self, hidden: torch.Tensor, positions: torch.Tensor, kinds: set[bool]
    ) -> dict[bool, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
        # For full (False) and sliding (True) layers: cos and sin, each (B, T, rotary dimensions).
        if self.rotary is None:
            return {kind: {} for kind in kinds}
        if not self._rotary_by_layer_type:
            shared = {"position_embeddings": self.rotary(hidden, positions)}
            return dict.fromkeys(kinds, shared)
        names = {False: "full_attention", True: "sliding_attention"}
        return {
            kind: {"position_embeddings": self.rotary(hidden, positions, names[kind])}
            for kind in kinds
        }

"""The whole model in one process, cut anywhere: what an audit runs in place of device and cloud."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from lambda_split.partition.cache import GrowingKVCache
from lambda_split.partition.checkpoint import Checkpoint
from lambda_split.partition.layers import LayerStack
from lambda_split.partition.masks import Masks, minimal_masks
from lambda_split.partition.parts import load_head, load_tail, load_trunk
from lambda_split.split import Split

__all__ = ["WholeModel", "load_whole", "with_private_ends"]


@dataclass(frozen=True, eq=False)
class WholeModel:
    """A model's embedding, layers and LM head; the numbers are the library's own modules'.

    Attributes:
        embedding: Token ids to hidden states.
        position_embedding: Learned embedding of positions, where the family has one.
        stack: All decoder layers.
        norm: The final norm.
        lm_head: Hidden states to logits.
        logit_cap: Where logits are squashed, the bound.
        max_positions: Positions that it is valid for.
    """

    embedding: nn.Module
    position_embedding: nn.Module | None
    stack: LayerStack
    norm: nn.Module
    lm_head: nn.Module
    logit_cap: float | None
    max_positions: int

    @property
    def layer_count(self) -> int:
        """Decoder layers."""
        return len(self.stack.layers)

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        width: int = self.stack.config.hidden_size
        return width

    @property
    def vocab_size(self) -> int:
        """Number of logits."""
        size: int = self.stack.config.vocab_size
        return size

    def new_cache(self, layers: range | None = None) -> GrowingKVCache:
        """An empty cache for some of the layers; for all by default."""
        return GrowingKVCache(
            self.max_positions, range(self.layer_count) if layers is None else layers
        )

    def embed(self, token_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Token ids and positions, int64 (B, T), to hidden states (B, T, W)."""
        hidden: torch.Tensor = self.embedding(token_ids)
        if self.position_embedding is not None:
            hidden = hidden + self.position_embedding(positions)
        return hidden

    def run(
        self,
        hidden: torch.Tensor,
        start: int,
        layers: range,
        cache: GrowingKVCache | None = None,
    ) -> torch.Tensor:
        """Run consecutive layers on a chunk.

        Args:
            hidden: (B, T, W).
            start: The chunk's first position; what the cache holds ends there.
            layers: Which layers.
            cache: Where keys and values go; None for a chunk that stands alone.

        Returns:
            (B, T, W).
        """
        end = start + hidden.shape[1]
        positions = torch.arange(start, end).expand(hidden.shape[0], -1)  # (T,) -> (B, T)
        explicit = self.stack.config._attn_implementation == "eager"  # noqa: SLF001 - library's name
        masks = minimal_masks(positions, start, self.stack.window, hidden.dtype, explicit=explicit)
        out: torch.Tensor = self.stack(hidden, positions, cache, masks, layers)
        return out

    def run_masked(
        self,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        masks: Masks,
        layers: range,
        cache: GrowingKVCache,
    ) -> torch.Tensor:
        """Run layers with masks of the caller's; shapes as in :class:`Masks`."""
        out: torch.Tensor = self.stack(hidden, positions, cache, masks, layers)
        return out

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The last layer's output (…, W) to logits (…, V)."""
        logits: torch.Tensor = self.lm_head(self.norm(hidden))
        if self.logit_cap is not None:
            logits = torch.tanh(logits / self.logit_cap) * self.logit_cap
        return logits

    def states(self, token_ids: torch.Tensor, depth: int) -> torch.Tensor:
        """Hidden states after ``depth`` layers for whole texts, int64 (B, T) to (B, T, W)."""
        positions = torch.arange(token_ids.shape[1]).expand_as(token_ids)
        return self.run(self.embed(token_ids, positions), 0, range(depth))


def load_whole(checkpoint: Checkpoint) -> WholeModel:
    """Load all parts of a checkpoint in float32.

    Raises:
        CheckpointError: a tensor is missing or malformed.
    """
    nothing = Split(0, 0)
    head = load_head(checkpoint, nothing)
    tail = load_tail(checkpoint, nothing)
    trunk = load_trunk(checkpoint, range(checkpoint.layer_count))
    return WholeModel(
        head.embedding,
        head.position_embedding,
        trunk.stack,
        tail.norm,
        tail.lm_head,
        tail.logit_cap,
        checkpoint.max_positions,
    )


def with_private_ends(model: WholeModel, split: Split) -> WholeModel:
    """A model with ends of its own that may be trained; its trunk stays the very same modules.

    A tied embedding and LM head become two matrices.
    """
    count = model.layer_count
    own = {*split.head(), *split.tail(count)}
    layers = [
        copy.deepcopy(layer) if number in own else layer
        for number, layer in enumerate(model.stack.layers)
    ]
    stack = copy.copy(model.stack)  # shallow: config, rotary embedding and windows are shared
    stack._modules = {**model.stack._modules, "layers": nn.ModuleList(layers)}  # noqa: SLF001 - torch offers no other way to replace one child of a copy
    return WholeModel(
        copy.deepcopy(model.embedding),
        copy.deepcopy(model.position_embedding),
        stack,
        copy.deepcopy(model.norm),
        copy.deepcopy(model.lm_head),
        model.logit_cap,
        model.max_positions,
    )

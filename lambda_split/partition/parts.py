"""The three parts of a model: head, trunk and tail."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import nn

from lambda_split.errors import SplitImpossible, UsageError
from lambda_split.partition.cache import GrowingKVCache, KVCache
from lambda_split.partition.checkpoint import Checkpoint
from lambda_split.partition.families import find_family
from lambda_split.partition.layers import LayerStack
from lambda_split.partition.masks import Masks, minimal_masks
from lambda_split.partition.materialize import empty_model, fill, layer_stack
from lambda_split.split import Split

__all__ = ["Head", "Tail", "Trunk", "load_head", "load_part", "load_tail", "load_trunk"]


class Head(nn.Module):
    """Token embedding and the first layers."""

    def __init__(
        self, embedding: nn.Module, position_embedding: nn.Module | None, stack: LayerStack
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.position_embedding = position_embedding
        self.stack = stack

    def shallower(self, layers: range) -> Head:
        """The head of fewer layers, made of this one's modules.

        Raises:
            UsageError: ``layers`` are not all held.
        """
        return Head(self.embedding, self.position_embedding, self.stack.part(layers))

    def forward(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        cache: KVCache | None,
        masks: Masks,
    ) -> torch.Tensor:
        """Token ids and positions, int64 (B, T), to hidden states (B, T, W)."""
        hidden: torch.Tensor = self.embedding(token_ids)
        if self.position_embedding is not None:
            hidden = hidden + self.position_embedding(positions)
        out: torch.Tensor = self.stack(hidden, positions, cache, masks)
        return out


class Trunk(nn.Module):
    """The middle layers; makes its masks itself."""

    def __init__(self, stack: LayerStack) -> None:
        super().__init__()
        self.stack = stack

    @torch.inference_mode()
    def forward(
        self,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        cache: GrowingKVCache,
        layers: range | None = None,
    ) -> torch.Tensor:
        """Append a chunk.

        Args:
            hidden: (B, T, W), in the trunk's dtype.
            positions: int64 (B, T): the next T positions after what the cache holds. Cut the cache
                back with ``truncate`` first if the chunk starts earlier.
            cache: Its ``layers`` are those that run.
            layers: Which of the loaded layers to run; all by default.

        Returns:
            (B, T, W), dtype as ``hidden``.

        Raises:
            UsageError: not all of ``layers`` are loaded, or the cache is for other layers.
            PositionBeyondEnd: the cache has no room left.
        """
        running = self.stack.numbers if layers is None else layers
        if cache.layers != running:
            raise UsageError(f"the cache is for layers {cache.layers}, not {running}")
        explicit = self.stack.config._attn_implementation == "eager"  # noqa: SLF001 - library's name
        masks = minimal_masks(
            positions, cache.length, self.stack.window, hidden.dtype, explicit=explicit
        )
        out: torch.Tensor = self.stack(hidden, positions, cache, masks, layers)
        return out


class Tail(nn.Module):
    """The last layers, final norm and LM head."""

    def __init__(
        self, stack: LayerStack, norm: nn.Module, lm_head: nn.Module, logit_cap: float | None
    ) -> None:
        super().__init__()
        self.stack = stack
        self.norm = norm
        self.lm_head = lm_head
        self.logit_cap = logit_cap

    def shallower(self, layers: range) -> Tail:
        """The tail of fewer layers, made of this one's modules.

        Raises:
            UsageError: ``layers`` are not all held.
        """
        return Tail(self.stack.part(layers), self.norm, self.lm_head, self.logit_cap)

    def forward(
        self,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        cache: KVCache | None,
        masks: Masks,
        logit_positions: torch.Tensor,
    ) -> torch.Tensor:
        """Hidden states to logits.

        Args:
            hidden: (B, T, W).
            positions: int64 (B, T).
            cache: Where the layers' keys and values go.
            masks: What they may attend to.
            logit_positions: int64 (N,), the rows among the T whose logits are wanted. The LM head
                is the largest matrix of the part: in a prompt only the last row is worth it.

        Returns:
            (B, N, V), dtype as ``hidden``.
        """
        hidden = self.stack(hidden, positions, cache, masks)
        hidden = hidden.index_select(1, logit_positions)  # (B, N, W)
        logits: torch.Tensor = self.lm_head(self.norm(hidden))
        if self.logit_cap is not None:
            logits = torch.tanh(logits / self.logit_cap) * self.logit_cap
        return logits


def _finish(part: nn.Module, device: torch.device | str) -> None:
    part.to(device)  # buffers; parameters are there already
    part.requires_grad_(requires_grad=False)
    part.eval()


def load_head(
    checkpoint: Checkpoint,
    split: Split,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    attention: str | None = None,
) -> Head:
    """Load the head; opens only the shards that hold its tensors.

    Args:
        checkpoint: The model.
        split: Where it is cut.
        dtype: The weights' and hidden states' dtype.
        device: Where the weights go.
        attention: A name in transformers' attention-function registry; the family's own by default.

    Raises:
        SplitImpossible: the split does not fit the model.
        TensorMissing: the checkpoint lacks a tensor.
        TensorMismatch: a tensor contradicts the config.
        CheckpointInvalid: a shard is missing or malformed.
        AdapterError: an adapter does not fit a tensor.
    """
    split.check(checkpoint.layer_count)
    family = find_family(checkpoint.family)
    model = empty_model(checkpoint, attention)
    stack, modules = layer_stack(checkpoint, model, split.head())
    base = model.get_submodule(family.base)
    embedding = base.get_submodule(family.embedding)
    modules[f"{family.base}.{family.embedding}"] = embedding
    position_embedding = None
    if family.position_embedding is not None:
        position_embedding = base.get_submodule(family.position_embedding)
        modules[f"{family.base}.{family.position_embedding}"] = position_embedding
    fill(checkpoint, "head", modules, dtype=dtype, device=device)
    if family.scaled_embedding:
        # The scale is a buffer that is not stored: the empty model's has no value.
        embedding.embed_scale = torch.tensor(embedding.scalar_embed_scale)
    head = Head(embedding, position_embedding, stack)
    _finish(head, device)
    return head


def load_trunk(
    checkpoint: Checkpoint,
    layers: range,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    attention: str | None = None,
) -> Trunk:
    """Load consecutive layers; arguments and errors as :func:`load_head`.

    Raises:
        SplitImpossible: the model has no such layers.
    """
    count = checkpoint.layer_count
    if layers.step != 1 or not 0 <= layers.start < layers.stop <= count:
        raise SplitImpossible(layers.start, count - layers.stop, count)
    stack, modules = layer_stack(checkpoint, empty_model(checkpoint, attention), layers)
    fill(checkpoint, "trunk", modules, dtype=dtype, device=device)
    trunk = Trunk(stack)
    _finish(trunk, device)
    return trunk


def load_tail(
    checkpoint: Checkpoint,
    split: Split,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    attention: str | None = None,
) -> Tail:
    """Load the tail; arguments and errors as :func:`load_head`."""
    split.check(checkpoint.layer_count)
    family = find_family(checkpoint.family)
    model = empty_model(checkpoint, attention)
    stack, modules = layer_stack(checkpoint, model, split.tail(checkpoint.layer_count))
    norm = model.get_submodule(family.base).get_submodule(family.final_norm)
    lm_head = model.get_submodule(family.lm_head)
    modules[f"{family.base}.{family.final_norm}"] = norm
    modules[family.lm_head] = lm_head
    stored_as = {f"{family.lm_head}.weight": checkpoint.lm_head_name}
    fill(checkpoint, "tail", modules, dtype=dtype, device=device, stored_as=stored_as)
    cap = checkpoint.config.final_logit_softcapping if family.capped_logits else None
    tail = Tail(stack, norm, lm_head, cap)
    _finish(tail, device)
    return tail


@overload
def load_part(
    checkpoint: Checkpoint,
    part: Literal["head"],
    split: Split,
    *,
    dtype: torch.dtype = ...,
    device: torch.device | str = ...,
    attention: str | None = ...,
) -> Head: ...
@overload
def load_part(
    checkpoint: Checkpoint,
    part: Literal["trunk"],
    split: Split,
    *,
    dtype: torch.dtype = ...,
    device: torch.device | str = ...,
    attention: str | None = ...,
) -> Trunk: ...
@overload
def load_part(
    checkpoint: Checkpoint,
    part: Literal["tail"],
    split: Split,
    *,
    dtype: torch.dtype = ...,
    device: torch.device | str = ...,
    attention: str | None = ...,
) -> Tail: ...
def load_part(
    checkpoint: Checkpoint,
    part: Literal["head", "trunk", "tail"],
    split: Split,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    attention: str | None = None,
) -> Head | Trunk | Tail:
    """Load one part of a split by its name; arguments and errors as :func:`load_head`."""
    if part == "head":
        return load_head(checkpoint, split, dtype=dtype, device=device, attention=attention)
    if part == "tail":
        return load_tail(checkpoint, split, dtype=dtype, device=device, attention=attention)
    split.check(checkpoint.layer_count)
    layers = split.trunk(checkpoint.layer_count)
    return load_trunk(checkpoint, layers, dtype=dtype, device=device, attention=attention)

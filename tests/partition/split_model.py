"""Head, trunk and tail of one checkpoint in one process, with a cache each."""

from __future__ import annotations

import torch

from lambda_split.partition import (
    Checkpoint,
    GrowingKVCache,
    Masks,
    load_head,
    load_tail,
    load_trunk,
    minimal_masks,
)
from lambda_split.split import Split


class SplitModel:
    def __init__(self, checkpoint: Checkpoint, split: Split, dtype: torch.dtype = torch.float32):
        self.checkpoint = checkpoint
        layers = checkpoint.layer_count
        self.head = load_head(checkpoint, split, dtype=dtype)
        self.trunk = load_trunk(checkpoint, split.trunk(layers), dtype=dtype)
        self.tail = load_tail(checkpoint, split, dtype=dtype)
        self.dtype = dtype
        self.caches: list[GrowingKVCache] = []
        self.reset()

    def reset(self) -> None:
        stacks = (self.head.stack, self.trunk.stack, self.tail.stack)
        self.caches = [GrowingKVCache(self.checkpoint.max_positions, s.numbers) for s in stacks]

    def _masks(self, positions: torch.Tensor, start: int) -> Masks:
        window = next((w for w in self.checkpoint.windows if w is not None), None)
        explicit = self.head.stack.config._attn_implementation == "eager"
        return minimal_masks(positions, start, window, self.dtype, explicit=explicit)

    @torch.inference_mode()
    def forward(self, token_ids: torch.Tensor, start: int) -> torch.Tensor:
        """Logits (B, T, V) of a chunk that begins at ``start``; caches are cut back to it first."""
        tokens = token_ids.shape[1]
        for cache in self.caches:
            cache.truncate(start)
        positions = torch.arange(start, start + tokens)[None].expand(token_ids.shape[0], -1)
        masks = self._masks(positions, start)
        hidden = self.head(token_ids, positions, self.caches[0], masks)
        hidden = self.trunk(hidden, positions, self.caches[1])
        rows = torch.arange(tokens)
        logits: torch.Tensor = self.tail(hidden, positions, self.caches[2], masks, rows)
        return logits

    def greedy(self, prompt: torch.Tensor, count: int) -> list[int]:
        self.reset()
        logits = self.forward(prompt, 0)
        length = prompt.shape[1]
        out: list[int] = []
        for _ in range(count):
            out.append(int(logits[0, -1].argmax()))
            logits = self.forward(torch.tensor([[out[-1]]]), length)
            length += 1
        return out

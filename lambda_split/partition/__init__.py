"""How a model is cut: the only shared code that knows torch and transformers."""

from lambda_split.partition.cache import GrowingKVCache, KVCache
from lambda_split.partition.checkpoint import Checkpoint, open_checkpoint
from lambda_split.partition.families import supported_families
from lambda_split.partition.layers import LayerStack
from lambda_split.partition.masks import Masks, causal_masks, minimal_masks
from lambda_split.partition.parts import (
    Head,
    Tail,
    Trunk,
    load_head,
    load_part,
    load_tail,
    load_trunk,
)

__all__ = [
    "Checkpoint",
    "GrowingKVCache",
    "Head",
    "KVCache",
    "LayerStack",
    "Masks",
    "Tail",
    "Trunk",
    "causal_masks",
    "load_head",
    "load_part",
    "load_tail",
    "load_trunk",
    "minimal_masks",
    "open_checkpoint",
    "supported_families",
]

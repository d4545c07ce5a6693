"""Held-out perplexity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from .batching import IGNORE, encoded, pad
from .corpus import Split


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Perplexity per token over whole documents, first token aside."""

    value: float
    tokens: int


def held_out_documents(tokenizer: Tokenizer, split: Split, count: int) -> list[list[int]]:
    """The first held-out documents of a split as token ids."""
    return list(islice(encoded(tokenizer, split, seed=0), count))


@torch.inference_mode()
def perplexity(model: LlamaForCausalLM, texts: list[list[int]], batch: int = 8) -> Perplexity:
    """Measure the perplexity of documents, each one on its own and from position 0.

    Args:
        model: The model; it computes in its own dtype.
        texts: Token ids of each document.
        batch: Documents computed together, padded on the right.

    Returns:
        The perplexity and the number of predicted tokens.
    """
    total, tokens = 0.0, 0
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), batch):
        group = ordered[start : start + batch]
        padded = pad(group)
        logits = model(input_ids=padded.ids, use_cache=False).logits.float()
        # (documents, width, vocabulary) -> (documents * (width - 1), vocabulary)
        flat = logits[:, :-1].reshape(-1, logits.shape[-1])
        wanted = padded.labels[:, 1:].reshape(-1)
        loss = torch.nn.functional.cross_entropy(flat, wanted, ignore_index=IGNORE, reduction="sum")
        total += float(loss)
        tokens += int((wanted != IGNORE).sum())
    return Perplexity(math.exp(total / tokens), tokens)

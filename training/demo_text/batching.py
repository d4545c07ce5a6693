"""Batching: whole documents of similar length side by side.

No document is cut and none shares a row with another one. A question about a story whose text
was cut off would teach the model to make answers up, and a row of several documents costs
attention that a small machine can spend better.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import torch
from tokenizers import Tokenizer

from .corpus import Split, documents
from .recipe import PAD_ID
from .tokenizer import render

#: Documents that are sorted by length together; more of them leave less padding.
_POOL: Final = 1024
#: What the loss ignores.
IGNORE: Final = -100


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents padded on the right: ids and labels, both ``(documents, width)``.

    A causal model never looks to the right, so no mask is needed.
    """

    ids: torch.Tensor
    labels: torch.Tensor


def encoded(tokenizer: Tokenizer, split: Split, seed: int) -> Iterator[list[int]]:
    """The documents of a stream as token ids, markup included."""
    for document in documents(split, seed):
        yield tokenizer.encode(render(document), add_special_tokens=False).ids


def pad(texts: list[list[int]]) -> Batch:
    """Put documents side by side."""
    width = max(len(ids) for ids in texts)
    # Shape: (documents, width).
    ids = torch.tensor([[*one, *[PAD_ID] * (width - len(one))] for one in texts])
    return Batch(ids, ids.masked_fill(ids == PAD_ID, IGNORE))


def batches(tokenizer: Tokenizer, *, seed: int, size: int, longest: int) -> Iterator[Batch]:
    """An endless stream of training batches, the same for the same arguments.

    Args:
        tokenizer: Turns documents into tokens.
        seed: Seed of the documents and of the order of the batches.
        size: Most tokens in a batch, padding included.
        longest: Longer documents are left out.

    Yields:
        Batches of documents of similar length; short ones and long ones in random order.
    """
    rng = Random(seed)
    stream = encoded(tokenizer, "train", seed)
    while True:
        pool = sorted((next(stream) for _ in range(_POOL)), key=len)
        groups: list[list[list[int]]] = [[]]
        for ids in pool:
            if len(ids) > longest:
                continue
            # Sorted by length, so the newest document is the group's longest one.
            if groups[-1] and (len(groups[-1]) + 1) * len(ids) > size:
                groups.append([])
            groups[-1].append(ids)
        rng.shuffle(groups)
        yield from (pad(group) for group in groups)

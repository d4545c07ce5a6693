"""Attacks that need nothing but the public weights and one pass: nearest, tail, replay, guess."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from audit.attacks.search import SearchSettings, search
from audit.whole_model import WholeModel

__all__ = ["guess_from_length", "nearest_embedding", "public_tail", "replay"]

Floats = npt.NDArray[np.float32]


@torch.inference_mode()
def nearest_embedding(model: WholeModel, observed: Floats) -> tuple[int, ...]:
    """For each position the token whose embedding points most nearly the same way.

    Args:
        model: The public model.
        observed: float32 (T, W), what crossed.
    """
    every = torch.arange(model.vocab_size)
    embeddings = model.embedding(every)  # (V, W)
    # What all have in common says nothing about a token: it is taken off on both sides.
    states = torch.from_numpy(observed)
    common = states.mean(0) if len(states) > 1 else torch.zeros(states.shape[1])
    scores = _cosines(states - common, embeddings - embeddings.mean(0))  # (T, V)
    return tuple(scores.argmax(-1).tolist())


def _cosines(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Cosine of every row (T, W) with every row (V, W): (T, V)."""
    normal = torch.nn.functional.normalize
    return normal(left, dim=-1) @ normal(right, dim=-1).T


@torch.inference_mode()
def public_tail(model: WholeModel, tail_layers: int, observed: Floats) -> tuple[int, ...]:
    """Run the public tail on what came back: the most likely next token at every position.

    Args:
        model: The public model.
        tail_layers: Layers of the tail.
        observed: float32 (T, W), from position 0 on.
    """
    count = model.layer_count
    hidden = torch.from_numpy(observed)[None]  # (1, T, W)
    out = model.run(hidden, 0, range(count - tail_layers, count))
    return tuple(model.logits(out[0]).argmax(-1).tolist())


@torch.inference_mode()
def replay(model: WholeModel, head_layers: int, observed: Floats) -> tuple[int, ...]:
    """Put what went up through all remaining layers: the next token at every position.

    Args:
        model: The public model.
        head_layers: Layers of the head.
        observed: float32 (T, W), from position 0 on.
    """
    hidden = torch.from_numpy(observed)[None]  # (1, T, W)
    out = model.run(hidden, 0, range(head_layers, model.layer_count))
    return tuple(model.logits(out[0]).argmax(-1).tolist())


def guess_from_length(
    model: WholeModel, positions: int, known: tuple[int, ...], beams: int
) -> tuple[int, ...]:
    """What the model would write if all that is known is how many tokens there are.

    This is what somebody learns who sees sizes and times only: the floor of all attacks.

    Args:
        model: The public model.
        positions: How many tokens crossed, the known ones included.
        known: The first tokens, where they are known.
        beams: Prefixes that are kept.
    """
    nothing = np.zeros((positions, model.hidden_size), np.float32)
    settings = SearchSettings(beams=beams, prior=True, likelihood=torch.zeros_like, rounding=0.0)
    return search(model, 0, nothing, known, settings)

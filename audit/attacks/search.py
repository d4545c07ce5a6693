"""Vocabulary search: which token, put through the public head, gives what crossed?

Position by position, every token of the vocabulary is tried after what was recovered so far, and
the nearest output wins. This recovers nearly all tokens at any depth where nothing but rounding
disturbs it (arXiv 2505.18332, 2510.15511). Against noise the model itself is the attacker's prior:
of several prefixes those are kept whose likelihood under the noise and under the language model is
greatest, a beam search.

All candidates of a position are tried in few passes. They stand side by side in one sequence at
the same position, and a mask lets each see its own prefix and itself only; keys and values of all
prefixes are in one cache. So any family of models is searched by its own modules.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from audit.whole_model import WholeModel
from lambda_split.partition import GrowingKVCache, Masks

__all__ = ["Likelihood", "SearchSettings", "search"]

Floats = npt.NDArray[np.float32]
Likelihood = Callable[[torch.Tensor], torch.Tensor]

_LIKELIEST = 16  # tried first: where nothing but rounding disturbs, it is mostly one of these
_CANDIDATES_AT_ONCE = 256


@dataclass(frozen=True)
class SearchSettings:
    """How hard the search tries.

    Attributes:
        beams: Prefixes that are kept.
        prior: Whether the language model's own probabilities count; the attacker needs all weights.
        likelihood: Log-likelihood of squared distances, (…,) to (…,); only differences count.
        rounding: How far rounding can take a state away, as a share of its length. A candidate that
            is nearer is taken at once; 0 tries the whole vocabulary at every position.
        view: What is compared of outputs and of what crossed, (…, W) to (…, W): for example the
            channels in order of size, which a secret permutation leaves alone.
    """

    beams: int = 1
    prior: bool = False
    likelihood: Likelihood = field(default=torch.neg)
    rounding: float = 0.0
    view: Callable[[torch.Tensor], torch.Tensor] = field(default=torch.Tensor.detach)


@dataclass(frozen=True, eq=False)
class _Beam:
    """A prefix: its tokens, where its keys and values are in the cache, and how likely it is."""

    token_ids: tuple[int, ...]
    places: tuple[int, ...]
    score: float
    next_log_probabilities: torch.Tensor  # (V,): the model's own, of the token that comes next


class _Tree:
    """The keys and values of every prefix that was ever kept, in one cache."""

    def __init__(self, model: WholeModel, depth: int) -> None:
        self.model = model
        self.depth = depth
        self._cache = GrowingKVCache(1 << 20, range(model.layer_count))
        self._size = 0

    def try_tokens(self, beam: _Beam, token_ids: torch.Tensor) -> torch.Tensor:
        """What the head gives for each token (C,) after a prefix: (C, W); the cache stays."""
        out = self._run([beam] * len(token_ids), token_ids, range(self.depth))
        self._forget()
        return out

    def keep(self, beams: list[_Beam], token_ids: list[int]) -> tuple[list[int], torch.Tensor]:
        """Append a token to each prefix; its place, and log-probabilities (B, V) of the next."""
        out = self._run(beams, torch.tensor(token_ids), range(self.model.layer_count))
        places = list(range(self._size, self._size + len(beams)))
        self._size += len(beams)
        return places, self.model.logits(out).float().log_softmax(-1)

    def _run(self, beams: list[_Beam], token_ids: torch.Tensor, layers: range) -> torch.Tensor:
        position = len(beams[0].token_ids)
        positions = torch.full((1, len(token_ids)), position)
        hidden = self.model.embed(token_ids[None], positions)  # (C,) -> (1, C, W)
        seen = torch.zeros(len(beams), self._size, dtype=torch.bool)  # (C, cached)
        for row, beam in enumerate(beams):
            seen[row, list(beam.places)] = True
        masks = self._masks(seen, beams, position)
        return self.model.run_masked(hidden, positions, masks, layers, self._cache)[0]

    def _masks(self, seen: torch.Tensor, beams: list[_Beam], position: int) -> Masks:
        itself = torch.eye(len(beams), dtype=torch.bool)
        full = _additive(torch.cat([seen, itself], dim=1))
        window = self.model.stack.window
        if window is None or position < window:
            return Masks(full, full)
        near = torch.zeros_like(seen)
        for row, beam in enumerate(beams):
            near[row, list(beam.places[position - window + 1 :])] = True
        return Masks(full, _additive(torch.cat([near, itself], dim=1)))

    def _forget(self) -> None:
        """Drop the candidates that were tried last."""
        if self.depth:
            self._cache.truncate(self._size)


@torch.inference_mode()
def search(
    model: WholeModel,
    depth: int,
    observed: Floats,
    known: tuple[int, ...],
    settings: SearchSettings,
) -> tuple[int, ...]:
    """Recover the tokens whose hidden states crossed.

    Args:
        model: The public model.
        depth: Layers of the head.
        observed: float32 (positions, W), from position 0 on.
        known: The first tokens, where the attacker knows them (a start token).
        settings: How hard to try.

    Returns:
        One token for each position, the known ones first.
    """
    tree = _Tree(model, depth)
    target = settings.view(torch.from_numpy(np.ascontiguousarray(observed)))
    empty = _Beam((), (), 0.0, torch.zeros(model.vocab_size))  # every first token is as likely
    beams = [empty]
    for token in known:
        beams = _grown(tree, [(beams[0], token, 0.0)])
    for position in range(len(known), len(target)):
        beams = _grown(tree, _best(tree, beams, target[position], settings))
    return beams[0].token_ids


def _grown(tree: _Tree, chosen: list[tuple[_Beam, int, float]]) -> list[_Beam]:
    places, log_probabilities = tree.keep(
        [beam for beam, _, _ in chosen], [t for _, t, _ in chosen]
    )
    return [
        _Beam((*beam.token_ids, token), (*beam.places, place), score, following)
        for (beam, token, score), place, following in zip(
            chosen, places, log_probabilities, strict=True
        )
    ]


def _best(
    tree: _Tree, beams: list[_Beam], target: torch.Tensor, settings: SearchSettings
) -> list[tuple[_Beam, int, float]]:
    """The best continuations, each a prefix, a token and a score."""
    rows = []
    for beam in beams:
        distances = _distances(tree, beam, target, settings)  # (V,)
        scores = settings.likelihood(distances).double()
        if settings.prior:
            scores = scores + beam.next_log_probabilities
        rows.append(beam.score + scores)
    flat = torch.stack(rows).flatten()  # (B, V) -> (B·V,)
    top = flat.topk(settings.beams)
    vocabulary = len(rows[0])
    return [
        (beams[index // vocabulary], index % vocabulary, score)
        for score, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        if math.isfinite(score)
    ]


def _distances(
    tree: _Tree, beam: _Beam, target: torch.Tensor, settings: SearchSettings
) -> torch.Tensor:
    """Squared distance of every token's output to what crossed, (V,); infinite where not tried."""
    sure = settings.rounding**2 * float(target.square().sum())
    order = beam.next_log_probabilities.argsort(descending=True)
    distances = torch.full((len(order),), math.inf)
    batches = [order[:_LIKELIEST]] if sure else []
    batches += torch.split(order[_LIKELIEST if sure else 0 :], _CANDIDATES_AT_ONCE)
    for candidates in batches:
        outputs = settings.view(tree.try_tokens(beam, candidates))  # (C, W)
        found = (outputs - target).square().sum(-1)
        distances[candidates] = found
        if float(found.min()) < sure:
            break
    return distances


def _additive(allowed: torch.Tensor) -> torch.Tensor:
    """(T, K) booleans to an additive mask (1, 1, T, K)."""
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    return mask[None, None]

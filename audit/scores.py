"""How much an attack found, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import sacrebleu

__all__ = ["Estimate", "Score", "bleu", "estimate", "mean_estimate", "score"]

_RESAMPLED = 2000


class Estimate(msgspec.Struct, frozen=True):
    """A share or a mean, and where it lies in 95 of 100 samples of as many texts or pictures.

    That is the percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Score:
    """What was found of one text.

    Attributes:
        right: Tokens that are the very same at the very same place.
        total: Tokens that count.
    """

    right: int
    total: int


def score(
    true: Sequence[int], found: Sequence[int], ignored: frozenset[int] = frozenset()
) -> Score:
    """Compare position by position; a token that was not found at all is wrong.

    Args:
        true: The secret.
        found: What the attack says; may be shorter.
        ignored: Tokens that do not count, because everybody knows where they stand.
    """
    counted = [number for number, token in enumerate(true) if token not in ignored]
    right = sum(number < len(found) and found[number] == true[number] for number in counted)
    return Score(right, len(counted))


def estimate(scores: Sequence[Score], seed: int = 0) -> Estimate:
    """The share over all texts, and its bootstrap interval over texts.

    Args:
        scores: One for each text.
        seed: Of the resampling.

    Returns:
        The share; 0 where no token of any text counts.
    """
    if not any(one.total for one in scores):
        return Estimate(0.0, 0.0, 0.0)
    right = np.array([one.right for one in scores], dtype=np.float64)
    total = np.array([one.total for one in scores], dtype=np.float64)
    chosen = np.random.default_rng(seed).integers(len(scores), size=(_RESAMPLED, len(scores)))
    sums = total[chosen].sum(1)
    shares = right[chosen].sum(1)[sums > 0] / sums[sums > 0]
    low, high = np.quantile(shares, [0.025, 0.975])
    return Estimate(float(right.sum() / total.sum()), float(low), float(high))


def mean_estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean of finite values, and its bootstrap interval over them.

    Args:
        values: One for each picture; one at least.
        seed: Of the resampling.
    """
    found = np.array(values, dtype=np.float64)
    chosen = np.random.default_rng(seed).integers(len(found), size=(_RESAMPLED, len(found)))
    low, high = np.quantile(found[chosen].mean(1), [0.025, 0.975])
    return Estimate(float(found.mean()), float(low), float(high))


def bleu(true: Sequence[str], found: Sequence[str]) -> float:
    """BLEU-4 of all texts together, 0 to 100 (Papineni et al. 2002, as sacrebleu computes it)."""
    return float(sacrebleu.corpus_bleu(list(found), [list(true)], force=True).score)

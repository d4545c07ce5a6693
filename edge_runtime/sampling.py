"""Choosing the next token from logits, on the device.

The steps and their order are those of transformers' ``generate``: repetition penalty, temperature,
top-k, top-p, min-p, then one draw. Sources: repetition penalty (Keskar et al., arXiv 1909.05858),
top-k (Fan et al., 1805.04833), top-p (Holtzman et al., 1904.09751), min-p (Nguyen et al.,
2407.01082).

Vocabularies have up to a quarter of a million tokens and a device samples once per token, so
nothing here sorts indices: thresholds are found among values, which numpy sorts far faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from edge_runtime.given_numbers import finite_number, whole_number
from lambda_split.bundle import GenerationDefaults
from lambda_split.errors import LogitsInvalid, UsageError

__all__ = ["Sampler", "SamplingSettings", "probabilities"]

_Floats = npt.NDArray[np.float32]

# Keep the division by the temperature inside float32; far below, sampling is greedy anyway, and far
# above, all tokens that have a chance have the same one.
_SMALLEST_TEMPERATURE, _LARGEST_TEMPERATURE = 1e-30, 1e38
_BLOCK = 512  # elements summed at once where a running sum is searched


@dataclass(frozen=True)
class SamplingSettings:
    """How the next token is chosen; the defaults are greedy.

    Attributes:
        temperature: Divides the logits; 0 takes the most likely token and ignores the filters.
        top_k: Only the ``top_k`` most likely tokens (and those tied with the last); 0 is off.
        top_p: Only the smallest set of most likely tokens whose probability reaches ``top_p``;
            1 is off.
        min_p: Only tokens at least ``min_p`` times as likely as the most likely one; 0 is off.
        repetition_penalty: Divides positive and multiplies negative logits of tokens that occurred
            before, in the prompt or the reply; 1 is off.
        seed: Makes the draws repeatable; ``None`` takes one from the operating system.

    Raises:
        UsageError: a value is not a number, or out of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    @classmethod
    def of(cls, defaults: GenerationDefaults) -> Self:
        """The settings that a bundle gives for what callers leave open."""
        return cls(
            temperature=defaults.temperature,
            top_k=defaults.top_k,
            top_p=defaults.top_p,
            min_p=defaults.min_p,
            repetition_penalty=defaults.repetition_penalty,
        )

    def __post_init__(self) -> None:
        self._check_number("temperature", 0.0, math.inf)
        self._check_integer("top_k")
        self._check_number("top_p", 0.0, 1.0)
        self._check_number("min_p", 0.0, 1.0)
        # Bounds that no one reaches on purpose and that keep penalized float32 logits finite.
        self._check_number("repetition_penalty", 1e-3, 1e3)
        if self.seed is not None:
            self._check_integer("seed")

    def _check_number(self, name: str, low: float, high: float) -> None:
        value = finite_number(name, getattr(self, name))
        if not low <= value <= high:
            wanted = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
            raise UsageError(f"{name} must be a finite number {wanted}, not {value!r}")
        object.__setattr__(self, name, value)

    def _check_integer(self, name: str) -> None:
        object.__setattr__(self, name, whole_number(name, getattr(self, name), 0))


class Sampler:
    """Draws tokens with a random state of its own.

    Each drawn token uses exactly one number of the PCG64 stream, and greedy tokens use none. So the
    text depends on the seed and on how many tokens were drawn, never on how often the trunk had to
    replay; and a sampler can be made anew where another one stopped.

    Args:
        settings: What to draw by.
        drawn: How many numbers of the stream were used before.
    """

    def __init__(self, settings: SamplingSettings, *, drawn: int = 0) -> None:
        self.settings = settings
        self.drawn = whole_number("drawn", drawn, 0)
        stream = np.random.PCG64(settings.seed)
        stream.advance(self.drawn)
        self._random = np.random.Generator(stream)

    def sample(self, logits: _Floats, history: Sequence[int] | npt.NDArray[np.int64]) -> int:
        """Choose the next token.

        Args:
            logits: float32 (V,), not changed.
            history: Token ids of the prompt and of the reply so far; read only where a repetition
                penalty is set.

        Returns:
            A token id below V; greedy ties go to the smallest.

        Raises:
            LogitsInvalid: the largest logit is not a finite number.
        """
        scores = _penalized(logits, history, self.settings.repetition_penalty)
        if self.settings.temperature == 0:
            return _most_likely(scores)
        weights = _weights(scores, self.settings)
        point = self._random.random() * float(weights.sum(dtype=np.float64))
        self.drawn += 1
        return _crossing(weights, point)


def probabilities(
    logits: _Floats, history: Sequence[int] | npt.NDArray[np.int64], settings: SamplingSettings
) -> npt.NDArray[np.float64]:
    """The distribution that :meth:`Sampler.sample` draws from.

    Args:
        logits: float32 (V,).
        history: Token ids of the prompt and of the reply so far.
        settings: The filters; the seed has no influence.

    Returns:
        float64 (V,), summing to 1. With temperature 0 the most likely token has probability 1.

    Raises:
        LogitsInvalid: the largest logit is not a finite number.
    """
    scores = _penalized(logits, history, settings.repetition_penalty)
    if settings.temperature == 0:
        result = np.zeros(scores.shape[0], dtype=np.float64)
        result[_most_likely(scores)] = 1.0
        return result
    weights = _weights(scores, settings).astype(np.float64)
    weights /= weights.sum()
    return weights


def _most_likely(scores: _Floats) -> int:
    best = int(np.argmax(scores))  # a NaN anywhere counts as the largest
    _check_largest(float(scores[best]))
    return best


def _check_largest(value: float) -> None:
    if not math.isfinite(value):
        raise LogitsInvalid(str(value))


def _penalized(
    logits: _Floats, history: Sequence[int] | npt.NDArray[np.int64], penalty: float
) -> _Floats:
    """float32 (V,): the logits, copied only if a penalty changes them."""
    if penalty == 1.0 or len(history) == 0:
        return logits
    seen = np.asarray(history, dtype=np.int64)
    # A tokenizer may know more tokens than the model has logits for.
    seen = seen[(seen >= 0) & (seen < logits.shape[0])]
    scores = logits.copy()
    values = logits[seen]
    # A token seen twice is written twice with the same value, so it is penalized once.
    scores[seen] = np.where(values < 0, values * np.float32(penalty), values / np.float32(penalty))
    return scores


def _weights(scores: _Floats, settings: SamplingSettings) -> _Floats:
    """float32 (V,): each token's chance relative to the most likely one's; 0 if filtered out."""
    largest = np.max(scores)
    _check_largest(float(largest))
    within = min(max(settings.temperature, _SMALLEST_TEMPERATURE), _LARGEST_TEMPERATURE)
    temperature = np.float32(within)
    with np.errstate(over="ignore"):  # far below the largest at a tiny temperature: weight 0
        weights: _Floats = np.exp((scores - largest) / temperature)
    if 0 < settings.top_k < scores.shape[0]:
        # Among the scores: the weights of different scores may have been rounded to the same.
        place = scores.shape[0] - settings.top_k
        weights *= scores >= np.partition(scores, place)[place]
    if settings.top_p < 1.0:
        weights *= _nucleus(weights, settings.top_p)
    if settings.min_p > 0.0:
        weights *= weights >= np.float32(settings.min_p)
    return weights


def _nucleus(weights: _Floats, top_p: float) -> npt.NDArray[np.bool_]:
    """Which tokens top-p keeps, bool (V,).

    From the least likely upwards, tokens go as long as together they weigh at most ``1 - top_p`` of
    the total. Of tokens with equal weight the larger ids go first, as greedy sampling prefers the
    smallest too (transformers leaves their order to an unstable sort).
    """
    candidates = weights[weights > 0.0]
    total = float(candidates.sum(dtype=np.float64))
    budget = (1.0 - top_p) * total
    # Tokens below an equal share of the budget fit into it all together: no need to sort them.
    # (The largest weight is 1 and stays, whatever rounding did to the quotient.)
    rest = np.sort(candidates[candidates >= min(budget / candidates.shape[0], 1.0)])
    dropped = total - float(rest.sum(dtype=np.float64))
    cut = _crossing(rest, budget - dropped)
    keep: npt.NDArray[np.bool_] = weights >= rest[cut]
    tied = np.flatnonzero(weights == rest[cut])
    kept_ties = int(np.searchsorted(rest, rest[cut], side="right")) - cut
    keep[tied[kept_ties:]] = False
    return keep


def _crossing(weights: _Floats, target: float) -> int:
    """The first place where the running sum of ``weights`` exceeds ``target``.

    ``target`` is at least 0; at or above the total it is the last place of positive weight. A place
    of weight 0 is never returned. Sums are float64 (a quarter million float32 steps would drift)
    and two-level: numpy's running sum is ten times slower than its plain one.
    """
    sums = np.add.reduceat(weights, np.arange(0, weights.shape[0], _BLOCK), dtype=np.float64)
    block = _first_above(sums, target)
    before = float(sums[:block].sum())
    start = block * _BLOCK
    inside = weights[start : start + _BLOCK].astype(np.float64)
    return start + _first_above(inside, target - before)


def _first_above(values: npt.NDArray[np.float64], target: float) -> int:
    cumulative = np.cumsum(values)
    # Into the range, lest rounding picks a place of weight 0 before it or falls behind its end.
    within = min(max(target, 0.0), np.nextafter(cumulative[-1], 0.0))
    return int(np.searchsorted(cumulative, within, side="right"))

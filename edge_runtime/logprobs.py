"""Log-probabilities of sampled tokens, exact: the logits are on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.given_numbers import whole_number
from lambda_split.errors import UsageError

__all__ = [
    "MOST_ALTERNATIVES",
    "TokenLogprobs",
    "check_alternatives",
    "log_probabilities",
    "token_logprobs",
]

MOST_ALTERNATIVES = 20


@dataclass(frozen=True)
class TokenLogprobs:
    """What the model thought of one sampled token, before penalties, temperature and filters.

    Attributes:
        token_id: The token that was sampled.
        logprob: Its log-probability, in nats.
        top: The most likely tokens at its place with theirs, the likeliest first; as many as were
            asked for. The sampled one need not be among them.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def check_alternatives(top: int) -> int:
    """The number of alternatives as an integer.

    Raises:
        UsageError: it is none, or out of range.
    """
    number = whole_number("top_logprobs", top)
    if not 0 <= number <= MOST_ALTERNATIVES:
        raise UsageError(f"top_logprobs must be between 0 and {MOST_ALTERNATIVES}, not {number}")
    return number


def token_logprobs(logits: npt.NDArray[np.float32], token_id: int, top: int) -> TokenLogprobs:
    """The log-probabilities of one place.

    Args:
        logits: float32 (V,), not changed; their largest is finite.
        token_id: The token that was sampled.
        top: How many alternatives are wanted; of equally likely ones the smaller ids come first.
    """
    wide = logits.astype(np.float64)  # (V,)
    wide -= wide.max()
    wide -= np.log(np.exp(wide).sum())
    count = min(top, len(logits))
    best: list[int] = []
    if count:
        # In order of the logits: subtracting may have made two of them equal.
        threshold = np.partition(logits, len(logits) - count)[len(logits) - count]
        likely = np.flatnonzero(logits >= threshold)  # by id, those tied with the last included
        order = np.argsort(-logits[likely], kind="stable")[:count]
        best = likely[order].tolist()
    return TokenLogprobs(
        token_id=token_id,
        logprob=float(wide[token_id]),
        top=tuple((place, float(wide[place])) for place in best),
    )


def log_probabilities(
    logits: Iterable[npt.NDArray[np.float32]], targets: Sequence[int]
) -> npt.NDArray[np.float64]:
    """The log-probability of each token of a text at its place.

    Args:
        logits: float32 (n, V) of places one after another, n of any size; as many as targets.
        targets: The tokens that stand there.

    Returns:
        float64 (targets,), in nats.
    """
    parts: list[npt.NDArray[np.float64]] = []
    position = 0
    for each in logits:
        wide = each.astype(np.float64)  # (n, V)
        wide -= wide.max(axis=1, keepdims=True)
        there = targets[position : position + len(wide)]
        picked = wide[np.arange(len(wide)), there]  # (n, V) -> (n,)
        parts.append(picked - np.log(np.exp(wide).sum(axis=1)))
        position += len(wide)
    return np.concatenate(parts)

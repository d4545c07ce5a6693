"""Which cases a benchmark has, in which order, and about how long each takes."""

from __future__ import annotations

from collections.abc import Iterable

from bench.cases import Case
from bench.settings import BenchSettings
from lambda_split.split import Split

__all__ = ["GROWTH_TOKENS", "contexts", "edge_splits", "estimate_s", "plan", "symmetric_splits"]

GROWTH_TOKENS = 8  # how many next tokens are timed at each size of the context
_FIRST_CONTEXT = 16
# Only for the remaining time that progress shows; corrected by what has been measured.
_START_S = 4.0
_TOKEN_S = 0.008


def symmetric_splits(wanted: Iterable[int], layer_count: int) -> tuple[Split, ...]:
    """Splits with as many layers on each side as wanted, fewer where the model has fewer.

    The trunk keeps at least one layer. Splits that come out the same are one.
    """
    most = (layer_count - 1) // 2
    depths = dict.fromkeys(min(depth, most) for depth in wanted)
    return tuple(Split(depth, depth) for depth in depths)


def edge_splits(layer_count: int) -> tuple[Split, Split]:
    """Two splits such that the first one's head and the second one's tail are the whole model."""
    return Split(layer_count - 1, 0), Split(0, 1)


def contexts(max_context: int) -> tuple[int, ...]:
    """Sizes of the context for the table of growth: powers of two, and the largest at the end.

    Args:
        max_context: Positions that context and the tokens after it may take; 0 for no table.
    """
    last = max_context - GROWTH_TOKENS
    if last < 1:
        return ()
    sizes = []
    size = _FIRST_CONTEXT
    while size < last:
        sizes.append(size)
        size *= 2
    return (*sizes, last)


def plan(settings: BenchSettings) -> tuple[Case, ...]:
    """All cases; those with one server, and of them those that differ in the link, are together."""
    cases = []
    if "edge-only" in settings.modes:
        cases.append(Case(mode="edge-only"))
    if "cloud-only" in settings.modes:
        cases += [Case(mode="cloud-only", link=link) for link in settings.links]
    modes = [mode for mode in settings.modes if mode in ("split", "split-everything")]
    for split in settings.splits:
        grows = bool(settings.max_context) and split == settings.splits[0]
        cases += [
            Case(mode=mode, split=split, link=link, growth=growth)
            for growth in ((False, True) if grows else (False,))
            for mode in modes
            for link in settings.links
        ]
    return tuple(cases)


def estimate_s(case: Case, settings: BenchSettings) -> float:
    """About how long a case takes in seconds, where the model is small."""
    rtt = 0.0 if case.link is None else case.link.settings.rtt
    round_trip = _TOKEN_S + (0.0 if case.mode == "cloud-only" else rtt)
    if case.growth:
        tokens = (GROWTH_TOKENS + 1) * len(contexts(settings.max_context))
        # All positions again: the longest context costs about as many tokens as it has positions.
        again = settings.max_context if case.mode == "split-everything" else 0
        return _START_S + tokens * round_trip + again * _TOKEN_S / 10
    return _START_S + settings.repetitions * settings.max_new_tokens * round_trip

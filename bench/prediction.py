"""What a link should cost, from loopback's times and the link's own figures.

The model is tokens/s = 1 / (head + trunk + tail + RTT + bytes / bandwidth). Two things that it
leaves out are measured on loopback and added: the device's own work between the parts (sampling,
text), and what a round trip costs where the link itself costs nothing (WebSocket, the kernel, two
processes that wake each other).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.cases import LOOPBACK, Link
from bench.link_settings import LinkSettings
from bench.parts import TokenParts, run_parts
from bench.results import Measurement, Run

__all__ = ["Prediction", "link_s", "predict", "predictions"]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One case's speed as it was predicted and as it was measured, in tokens per second.

    Links take turns, so each generation is predicted from that on loopback in the same round, and
    what else the machine did meets both. All figures are medians over the rounds.

    Attributes:
        setting: The case's name without the link.
        link: The link.
        plain: By the plain model.
        full: With loopback's overhead added.
        measured: What came of it.
        plain_error: By how much of what was measured the plain model is off; above 0 where it is
            too fast.
        full_error: The same with the overhead.
    """

    setting: str
    link: Link
    plain: float
    full: float
    measured: float
    plain_error: float
    full_error: float


def link_s(parts: TokenParts, link: LinkSettings) -> float:
    """Seconds that a link costs one token: RTT + bytes / bandwidth.

    Jitter delays a packet by half of its bound on average, in each direction.
    """
    per_trip = link.rtt + link.jitter
    return parts.round_trips * per_trip + parts.up / link.up + parts.down / link.down


def predict(loopback: TokenParts, link: LinkSettings) -> tuple[float, float]:
    """Tokens per second by the plain model, and with loopback's overhead added."""
    crossing_s = link_s(loopback, link)
    compute_s = loopback.head_s + loopback.trunk_s + loopback.tail_s
    return 1 / (compute_s + crossing_s), 1 / (loopback.seconds + crossing_s)


def predictions(measurements: Sequence[Measurement]) -> tuple[Prediction, ...]:
    """Of all split cases on links other than loopback, as far as loopback was measured.

    Links that stall or cut are left out: what they cost is no constant.
    """
    bases = {
        each.case.setting: each.runs for each in _splits(measurements) if each.case.link == LOOPBACK
    }
    found = []
    for each in _splits(measurements):
        link, base = each.case.link, bases.get(each.case.setting)
        if link is None or link == LOOPBACK or base is None or not _steady(link.settings):
            continue
        found.append(_prediction(each.case.setting, link, base, each.runs))
    return tuple(found)


def _prediction(setting: str, link: Link, base: Sequence[Run], runs: Sequence[Run]) -> Prediction:
    rounds = [
        (*predict(run_parts(one), link.settings), other.tokens_per_s)
        for one, other in zip(base, runs, strict=True)
    ]
    return Prediction(
        setting=setting,
        link=link,
        plain=statistics.median(plain for plain, _, _ in rounds),
        full=statistics.median(full for _, full, _ in rounds),
        measured=statistics.median(measured for _, _, measured in rounds),
        plain_error=statistics.median(plain / measured - 1 for plain, _, measured in rounds),
        full_error=statistics.median(full / measured - 1 for _, full, measured in rounds),
    )


def _splits(measurements: Iterable[Measurement]) -> list[Measurement]:
    return [each for each in measurements if each.case.split is not None]


def _steady(link: LinkSettings) -> bool:
    return math.isinf(link.stall_every) and math.isinf(link.cut_every)

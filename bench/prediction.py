"""What a link should cost, from loopback's times and the link's own figures.

The model is tokens/s = 1 / (head + trunk + tail + RTT + bytes / bandwidth). Two things that it
leaves out are measured on loopback and added: the device's own work between the parts (sampling,
text), and what a round trip costs where the link itself costs nothing (WebSocket, the kernel, two
processes that wake each other). It also takes for granted that head, trunk and tail are as fast at
the link's pace as on loopback. They are not where cores fall asleep and caches are lost meanwhile;
how much of an error comes of that is told by putting in the times that they took on the link.
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

__all__ = ["Prediction", "at_pace", "link_s", "predict", "predictions"]


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
        paced: The same with the times that head, trunk and tail took on the link itself: no
            prediction any more, but a check that nothing else is missing.
        measured: What came of it.
        plain_error: By how much of what was measured the plain model is off; above 0 where it is
            too fast.
        full_error: The same with the overhead.
        paced_error: The same with the link's own times.
    """

    setting: str
    link: Link
    plain: float
    full: float
    paced: float
    measured: float
    plain_error: float
    full_error: float
    paced_error: float


def link_s(parts: TokenParts, link: LinkSettings) -> float:
    """Seconds that a link costs one token: RTT + bytes / bandwidth.

    Jitter delays a packet by half of its bound on average, in each direction.
    """
    per_trip = link.rtt + link.jitter
    return parts.round_trips * per_trip + parts.up / link.up + parts.down / link.down


def predict(loopback: TokenParts, link: LinkSettings) -> tuple[float, float]:
    """Tokens per second by the plain model, and with loopback's overhead added."""
    crossing_s = link_s(loopback, link)
    return 1 / (_compute_s(loopback) + crossing_s), 1 / (loopback.seconds + crossing_s)


def at_pace(loopback: TokenParts, own: TokenParts, link: LinkSettings) -> float:
    """Tokens per second with loopback's overhead, and the parts' times on the link itself."""
    overhead_s = loopback.seconds - _compute_s(loopback)
    return 1 / (_compute_s(own) + overhead_s + link_s(own, link))


def _compute_s(parts: TokenParts) -> float:
    return parts.head_s + parts.trunk_s + parts.tail_s


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
    plain, full, paced, measured = [], [], [], []
    for one, other in zip(base, runs, strict=True):
        loopback = run_parts(one)
        by_model, with_overhead = predict(loopback, link.settings)
        plain.append(by_model)
        full.append(with_overhead)
        paced.append(at_pace(loopback, run_parts(other), link.settings))
        measured.append(other.tokens_per_s)
    return Prediction(
        setting=setting,
        link=link,
        plain=statistics.median(plain),
        full=statistics.median(full),
        paced=statistics.median(paced),
        measured=statistics.median(measured),
        plain_error=_error(plain, measured),
        full_error=_error(full, measured),
        paced_error=_error(paced, measured),
    )


def _error(predicted: Sequence[float], measured: Sequence[float]) -> float:
    """The median over the rounds of how far the one is from the other."""
    return statistics.median(
        one / other - 1 for one, other in zip(predicted, measured, strict=True)
    )


def _splits(measurements: Iterable[Measurement]) -> list[Measurement]:
    return [each for each in measurements if each.case.split is not None]


def _steady(link: LinkSettings) -> bool:
    return math.isinf(link.stall_every) and math.isinf(link.cut_every)

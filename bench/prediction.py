"""What a link should cost, from loopback's times and the link's own figures.

The model is tokens/s = 1 / (head + trunk + tail + RTT + bytes / bandwidth). Two things that it
leaves out are measured on loopback and added: the device's own work between the parts (sampling,
text), and what a round trip costs where the link itself costs nothing (WebSocket, the kernel, two
processes that wake each other).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.cases import LOOPBACK, Link
from bench.link_settings import LinkSettings
from bench.parts import TokenParts, token_parts
from bench.results import Measurement
from bench.spread import Spread

__all__ = ["Prediction", "link_s", "predict", "predictions"]


@dataclass(frozen=True)
class Prediction:
    """One case's speed as it was predicted and as it was measured, in tokens per second.

    Attributes:
        setting: The case's name without the link.
        link: The link.
        plain: By the plain model.
        full: With loopback's overhead added.
        measured: The median.
    """

    setting: str
    link: Link
    plain: float
    full: float
    measured: float

    @property
    def plain_error(self) -> float:
        """By how much of what was measured the plain model is off; above 0 where too fast."""
        return self.plain / self.measured - 1

    @property
    def full_error(self) -> float:
        """The same with the overhead."""
        return self.full / self.measured - 1


def link_s(parts: TokenParts, link: LinkSettings) -> float:
    """Seconds that a link costs one token: RTT + bytes / bandwidth.

    Jitter delays a packet by half of its bound on average, in each direction.
    """
    per_trip = link.rtt + link.jitter
    return parts.round_trips * per_trip + parts.up / link.up + parts.down / link.down


def predict(loopback: TokenParts, link: LinkSettings) -> tuple[float, float]:
    """Tokens per second by the plain model, and with loopback's overhead added."""
    compute_s = loopback.head_s + loopback.trunk_s + loopback.tail_s
    plain_s = compute_s + link_s(loopback, link)
    return 1 / plain_s, 1 / (plain_s + loopback.link_s + loopback.rest_s)


def predictions(measurements: Sequence[Measurement]) -> tuple[Prediction, ...]:
    """Of all split cases on links other than loopback, as far as loopback was measured.

    Links that stall or cut are left out: what they cost is no constant.
    """
    bases = {
        each.case.setting: token_parts(each.runs)
        for each in _splits(measurements)
        if each.case.link == LOOPBACK
    }
    found = []
    for each in _splits(measurements):
        link, base = each.case.link, bases.get(each.case.setting)
        if link is None or link == LOOPBACK or base is None or not _steady(link.settings):
            continue
        plain, full = predict(base, link.settings)
        measured = Spread.of(run.tokens_per_s for run in each.runs).median
        found.append(Prediction(each.case.setting, link, plain, full, measured))
    return tuple(found)


def _splits(measurements: Iterable[Measurement]) -> list[Measurement]:
    return [each for each in measurements if each.case.split is not None]


def _steady(link: LinkSettings) -> bool:
    return math.isinf(link.stall_every) and math.isinf(link.cut_every)

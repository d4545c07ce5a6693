"""Measuring cases: device processes, links, and a server that is there already."""

from __future__ import annotations

import contextlib
import pathlib
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from bench.cases import Case
from bench.device_process import DeviceProcess, device_process
from bench.link import EmulatedLink, emulated_link
from bench.memory import peak_rss
from bench.orders import CloudOnly, Device, EdgeOnly, Generate, SplitEnds
from bench.plan import GROWTH_TOKENS, contexts, edge_splits
from bench.prompts import BenchPrompt
from bench.results import Bytes, Growth, GrowthPoint, Measurement, Model, Run
from bench.settings import BenchSettings

__all__ = ["Ground", "Server", "measure"]


_WARM_UP_TOKENS = 8  # caches, thread pools
# A trunk takes whoever had a token within the last second for somebody who waits for the next one,
# and lets prompts go in small pieces for their sake. Here that is the lane before, which is done.
_PAUSE_S = 1.1


@dataclass(frozen=True)
class Server:
    """What answers.

    Attributes:
        url: Its ``ws://`` address.
        pid: Its process, where it is ours.
    """

    url: str
    pid: int | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urllib.parse.urlsplit(self.url)
        return parts.hostname or "", parts.port or 80

    @property
    def path(self) -> str:
        """What stands behind them, and a proxy may go by."""
        parts = urllib.parse.urlsplit(self.url)
        return f"{parts.path}?{parts.query}" if parts.query else parts.path


@dataclass(frozen=True)
class Ground:
    """What all cases share.

    Attributes:
        settings: What was asked for.
        model: Of what.
        bundle: A folder with all splits that are measured.
        prompt: What generations continue.
        token_file: Holds the bearer token for the server, where there is one.
    """

    settings: BenchSettings
    model: Model
    bundle: pathlib.Path
    prompt: BenchPrompt
    token_file: str | None = None


def measure(
    cases: Sequence[Case], ground: Ground, server: Server | None
) -> tuple[Measurement | Growth, ...]:
    """Measure cases that differ in their link only.

    They take turns, so that whatever else the machine does meets all of them.

    Args:
        cases: Of those that :func:`bench.plan.plan` gave.
        ground: What they are measured with.
        server: Serves them; None for ``edge-only``.

    Raises:
        ProcessFailed: a device or a link failed, and has said why on stderr.
    """
    with contextlib.ExitStack() as stack:
        lanes = [_lane(case, ground, server, stack) for case in cases]
        if cases[0].growth:
            return _grow(lanes, ground)
        return _generate(lanes, ground, server)


@dataclass(frozen=True)
class _Lane:
    """A case that is being measured.

    Attributes:
        case: What is measured.
        device: Its device.
        counter: Counts on its link.
        handshake: What has crossed before the first generation.
    """

    case: Case
    device: DeviceProcess
    counter: _Counter
    handshake: Bytes


def _lane(case: Case, ground: Ground, server: Server | None, stack: contextlib.ExitStack) -> _Lane:
    link, path = None, ""
    if server is not None and case.link is not None:
        path = server.path
        link = stack.enter_context(emulated_link(server.address, case.link.description))
    device = stack.enter_context(device_process(_device(case, ground, link, path)))
    counter = _Counter(link)
    return _Lane(case, device, counter, counter.since_last())


def _generate(
    lanes: Sequence[_Lane], ground: Ground, server: Server | None
) -> tuple[Measurement, ...]:
    settings = ground.settings
    order = Generate(
        token_ids=ground.prompt.token_ids[: settings.prompt_tokens],
        text=ground.prompt.text(settings.prompt_tokens),
        max_new_tokens=settings.max_new_tokens,
        everything=lanes[0].case.mode == "split-everything",
    )
    warm_up = min(_WARM_UP_TOKENS, order.max_new_tokens)
    for lane in lanes:
        lane.device.generate(msgspec.structs.replace(order, max_new_tokens=warm_up))
        lane.counter.since_last()
    runs: list[list[Run]] = [[] for _ in lanes]
    peaks = [0] * len(lanes)
    for _ in range(settings.repetitions):
        for number, lane in enumerate(lanes):
            _pause(lane)
            found = lane.device.generate(order)
            peaks[number] = found.peak_rss
            runs[number].append(
                Run(
                    prompt_tokens=found.prompt_tokens,
                    new_tokens=found.new_tokens,
                    first=found.first,
                    rest=found.rest,
                    socket=lane.counter.since_last(),
                )
            )
    served = None if server is None or server.pid is None else peak_rss(server.pid)
    return tuple(
        Measurement(
            case=lane.case,
            runs=tuple(made),
            handshake=lane.handshake,
            device_peak_rss=peak,
            server_peak_rss=served,
        )
        for lane, made, peak in zip(lanes, runs, peaks, strict=True)
    )


def _grow(lanes: Sequence[_Lane], ground: Ground) -> tuple[Growth, ...]:
    points: list[list[GrowthPoint]] = [[] for _ in lanes]
    for context in contexts(ground.settings.max_context):
        once = Generate(
            token_ids=ground.prompt.token_ids[:context],
            text="",
            max_new_tokens=1,
            everything=lanes[0].case.mode == "split-everything",
            afresh=False,
        )
        timed = msgspec.structs.replace(once, max_new_tokens=GROWTH_TOKENS)
        for made, lane in zip(points, lanes, strict=True):
            _pause(lane)
            lane.device.generate(once)  # all parts hold the context now
            lane.counter.since_last()
            found = lane.device.generate(timed)
            made.append(
                GrowthPoint(
                    context=context,
                    tokens=GROWTH_TOKENS,
                    cost=found.first + found.rest,
                    socket=lane.counter.since_last(),
                )
            )
    return tuple(
        Growth(case=lane.case, points=tuple(made)) for lane, made in zip(lanes, points, strict=True)
    )


def _pause(lane: _Lane) -> None:
    """Let the trunk forget that other devices were served."""
    if lane.case.split is not None:
        time.sleep(_PAUSE_S)


class _Counter:
    """Bytes on a link, from one look to the next; none without a link."""

    def __init__(self, link: EmulatedLink | None) -> None:
        self._link = link
        self._last = Bytes(0, 0)

    def since_last(self) -> Bytes:
        if self._link is None:
            return Bytes(0, 0)
        carried = self._link.carried()
        last, self._last = self._last, Bytes(carried.up, carried.down)
        return Bytes(carried.up - last.up, carried.down - last.down)


def _device(case: Case, ground: Ground, link: EmulatedLink | None, path: str) -> Device:
    settings = ground.settings
    positions = settings.prompt_tokens + settings.max_new_tokens
    if case.growth:
        positions = settings.max_context
    if link is None:
        first, second = edge_splits(ground.model.layer_count)
        return EdgeOnly(
            bundle=str(ground.bundle),
            head_split=first,
            tail_split=second,
            max_positions=positions,
            threads=settings.threads,
        )
    url = f"ws://{link.address[0]}:{link.address[1]}{path}"
    if case.split is None:
        return CloudOnly(url=url)
    return SplitEnds(
        bundle=str(ground.bundle),
        split=case.split,
        url=url,
        codec=settings.codec,
        max_positions=positions,
        threads=settings.threads,
        token_file=ground.token_file,
    )

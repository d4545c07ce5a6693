"""Work that ends by itself, is stopped, or says that it still waits."""

from __future__ import annotations

import asyncio
import functools

import pytest

from edge_runtime.ui.stopping import Stops, until_stopped, waiting_note


def in_a_loop(test):
    """Run an asynchronous test in an event loop of its own."""

    @functools.wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


class Source:
    """Items that come when they are let, and whether somebody still wants them."""

    def __init__(self, *items: object) -> None:
        self._items = items
        self.gates = [asyncio.Event() for _ in items]
        self.closed = False

    async def run(self):
        try:
            for item, gate in zip(self._items, self.gates, strict=True):
                await gate.wait()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed = True


@in_a_loop
async def test_all_items_then_the_end() -> None:
    source = Source(1, 2, 3)
    for gate in source.gates:
        gate.set()
    taken = [item async for item in until_stopped(source.run(), asyncio.Event(), tick_s=30)]
    assert taken == [1, 2, 3]
    assert source.closed


@in_a_loop
async def test_a_tick_where_nothing_comes_and_nothing_is_lost_by_it() -> None:
    source, taken = Source("late"), []
    async for item in until_stopped(source.run(), asyncio.Event(), tick_s=0.01):
        taken.append(item)
        if len(taken) == 3:
            source.gates[0].set()
    assert taken[:3] == [None, None, None]
    assert [item for item in taken if item is not None] == ["late"]


@in_a_loop
async def test_stopping_ends_it_at_once_and_closes_its_source() -> None:
    source, stop, taken = Source(1, 2), asyncio.Event(), []
    source.gates[0].set()
    async for item in until_stopped(source.run(), stop, tick_s=30):
        taken.append(item)
        asyncio.get_running_loop().call_later(0.01, stop.set)
    assert taken == [1]
    assert source.closed


@in_a_loop
async def test_leaving_early_closes_its_source_too() -> None:
    source = Source(1, 2)
    source.gates[0].set()
    items = until_stopped(source.run(), asyncio.Event(), tick_s=30)
    assert await anext(items) == 1
    await items.aclose()
    assert source.closed


@in_a_loop
async def test_errors_come_through() -> None:
    source = Source(1, OSError("no"))
    for gate in source.gates:
        gate.set()
    items = until_stopped(source.run(), asyncio.Event(), tick_s=30)
    assert await anext(items) == 1
    with pytest.raises(OSError, match="no"):
        await anext(items)
    assert source.closed


@in_a_loop
async def test_each_tab_stops_its_own() -> None:
    stops = Stops()
    stops.stop("nothing runs")
    with stops.running("one") as one, stops.running("other") as other:
        stops.stop("one")
        assert (one.stop.is_set(), other.stop.is_set()) == (True, False)
    stops.stop("other")
    assert not other.stop.is_set()


@in_a_loop
async def test_a_tab_has_one_piece_of_work_at_a_time() -> None:
    stops = Stops()
    with stops.running("tab") as first:
        with stops.running("tab") as second:
            assert (first.stop.is_set(), second.stop.is_set()) == (True, False)
            stops.stop("tab")
            assert second.stop.is_set()
        stops.stop("tab")  # the first was stopped long ago: nothing is there any more


@in_a_loop
async def test_what_is_dropped_stays_dropped() -> None:
    stops = Stops()
    with stops.running("tab") as work:
        stops.stop("tab", drop=True)
        stops.stop("tab")
        assert work.dropped
    with stops.running("tab") as work:
        assert not work.dropped


def test_who_waits_is_told_for_what() -> None:
    assert "turn" in waiting_note(4, begun=False)
    assert "the trunk for 4 s" in waiting_note(4, begun=True)

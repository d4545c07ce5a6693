"""Which replica a session goes to, and how many replicas there should be."""

from __future__ import annotations

import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.replicas.load import Load, measure
from cloud.replicas.placing import Placements, rank
from cloud.replicas.scaling import TARGET_USE, USED, replicas_for, replicas_wanted


def load(free, sessions=0, *, total=100, max_sessions=10, seen=None):
    return Load(
        sessions=sessions,
        max_sessions=max_sessions,
        free_positions=free,
        total_positions=total,
        seen=seen or {},
    )


def test_the_roomiest_comes_first():
    assert rank({"a": load(20, 1), "b": load(70, 1), "c": load(50, 1)}, {}) == ["b", "c", "a"]


def test_a_replica_without_a_place_comes_last_whatever_its_room():
    assert rank({"a": load(90, 10), "b": load(5, 9)}, {}) == ["b", "a"]
    assert rank({"a": load(90, 9), "b": load(5, 1)}, {"a": 1}) == ["b", "a"]


def test_equal_room_is_decided_by_sessions():
    assert rank({"a": load(100, 3), "b": load(100, 1)}, {}) == ["b", "a"]


def test_a_new_replica_counts_as_empty():
    assert rank({"a": load(60, 2), "new": None}, {}) == ["new", "a"]
    assert rank({"a": load(60, 2), "new": None}, {"new": 3}) == ["a", "new"]


def test_what_was_placed_since_counts_as_a_usual_session():
    loads = {"a": load(60, 4), "b": load(55, 4)}
    assert rank(loads, {}) == ["a", "b"]
    assert rank(loads, {"a": 1}) == ["b", "a"]


def test_replicas_that_all_have_just_begun():
    assert rank({"a": None, "b": None}, {"a": 1}) == ["b", "a"]
    assert rank({}, {}) == []


def test_placements_are_counted_until_the_replica_has_seen_them():
    placements = Placements()
    placements.unseen |= {("g", 4), ("g", 6), ("other", 1)}
    assert placements.count(None) == 3
    assert placements.count(load(50, seen={"g": 3})) == 3
    assert placements.count(load(50, seen={"g": 4})) == 2
    # 6 got lost on the way; 7 was answered after it.
    assert placements.count(load(50, seen={"g": 7})) == 1
    assert placements.count(load(50, seen={"g": 7, "other": 2})) == 0


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 10), st.integers(0, 5)), max_size=6))
def test_every_replica_is_ranked_once_and_the_full_ones_last(drawn):
    loads = {number: load(free, sessions) for number, (free, sessions, _) in enumerate(drawn)}
    placed = {number: extra for number, (_, _, extra) in enumerate(drawn)}
    ranked = rank(loads, placed)
    assert sorted(ranked) == sorted(loads)
    full = [loads[each].sessions + placed[each] >= 10 for each in ranked]
    assert full == sorted(full)


def test_a_burst_is_spread_evenly():
    """Sixteen sessions within one measurement, as a router places them."""
    loads = {"a": load(100), "b": load(100), "c": load(100), "d": load(100)}
    placed = dict.fromkeys(loads, 0)
    for _ in range(16):
        placed[rank(loads, placed)[0]] += 1
    assert set(placed.values()) == {4}


@pytest.mark.parametrize(
    ("used", "wanted"),
    [((), 1), ((0.0, 0.0), 1), ((TARGET_USE,), 1), ((0.71,), 2), ((1.0, 1.0), 3), ((1.0,) * 7, 10)],
)
def test_so_many_replicas_that_none_is_too_full(used, wanted):
    assert replicas_for(used) == wanted


def context(used, *, running=None, low=1, high=5):
    return types.SimpleNamespace(
        aggregated_metrics={USED: used} if used is not None else None,
        running_replicas=list(used or ()) if running is None else running,
        capacity_adjusted_min_replicas=low,
        capacity_adjusted_max_replicas=high,
    )


def test_the_policy_keeps_to_its_bounds():
    assert replicas_wanted(context({"a": 1.0, "b": 0.5})) == (3, {})
    assert replicas_wanted(context({"a": 1.0, "b": 1.0}, high=2)) == (2, {})
    assert replicas_wanted(context({"a": 0.0}, low=2)) == (2, {})
    assert replicas_wanted(context(None, low=2)) == (2, {})


def test_the_policy_forgets_replicas_that_are_gone():
    assert replicas_wanted(context({"a": 1.0, "gone": 1.0}, running=["a"])) == (2, {})


class _Engine:
    def __init__(self, open_sessions, pool_use=None):
        self.open_sessions = open_sessions
        if pool_use is not None:
            self.pool_use = pool_use


def test_a_load_is_what_the_pool_says():
    pool = types.SimpleNamespace(used_blocks=6, total_blocks=8, block_positions=16)
    measured = measure(_Engine(2, pool), max_sessions=4, max_positions=64, seen={"g": 3})
    assert measured == load(32, 2, total=128, max_sessions=4, seen={"g": 3})
    assert measured.used == 0.75


def test_without_a_pool_sessions_count_whole():
    measured = measure(_Engine(3), max_sessions=4, max_positions=64, seen={})
    assert measured == load(64, 3, total=256, max_sessions=4)
    assert measured.used == 0.75


def test_a_load_travels_as_numbers():
    before = load(10, 2, seen={"g": 7})
    assert Load.from_stats(before.to_stats()) == before
    assert Load.from_stats({}) is None

"""A time without a trunk, on a clock that a test sets: pauses, giving up, forgetting."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import pytest

from edge_runtime import outage as outage_module
from edge_runtime.outage import Outage
from edge_runtime.retry import RetryPolicy
from lambda_split.errors import CapacityRefused, ConnectionLost, ServerDraining, SessionEvicted

LOST = ConnectionLost("gone")


@dataclass
class _Clock:
    """Stands in for the module ``time``: sleeping takes no time but is remembered."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass(frozen=True)
class _Steady(RetryPolicy):
    """A policy without jitter: a second more for each attempt."""

    def delay_s(self, attempt: int, *, wished_s: float = 0.0, spread: bool = False) -> float:
        return max(float(attempt) + 0.5 * spread, wished_s)


@pytest.fixture
def clock(monkeypatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr(outage_module, "time", made)
    return made


def _outage(give_up_after_s: float = 100.0) -> Outage:
    made = Outage(_Steady(give_up_after_s=give_up_after_s))
    made.await_progress()
    return made


def test_pauses_grow_until_there_is_progress(clock) -> None:
    outage = _outage()
    for _ in range(4):
        outage.met(LOST)
        outage.pause()
    outage.over()
    outage.await_progress()
    outage.met(LOST)
    outage.pause()
    assert clock.slept == [0, 1, 2, 3, 0]


def test_a_full_server_is_given_the_time_it_wants_once(clock) -> None:
    outage = _outage()
    for error in (CapacityRefused("full", 9), LOST):
        outage.met(error)
        outage.pause()
    assert clock.slept == [9, 1]


@pytest.mark.parametrize("error", [ServerDraining(), SessionEvicted()])
def test_those_whom_a_server_sent_away_are_spread(clock, error) -> None:
    outage = _outage()
    outage.met(error)
    outage.pause()
    outage.met(LOST)
    outage.pause()
    assert clock.slept == [0.5, 1]


def test_what_is_not_wanted_any_more_has_not_to_be_waited_for(clock) -> None:
    for error in (CapacityRefused("full", 9), ServerDraining()):
        outage = _outage()
        outage.met(error)
        outage.forget()
        outage.pause()
    assert clock.slept == [0, 0]


@pytest.mark.parametrize("error", [CapacityRefused("full", 9), ServerDraining()])
def test_an_outage_that_is_over_holds_up_no_later_connection(clock, error) -> None:
    outage = _outage()
    outage.met(error)
    outage.over()
    outage.await_progress()
    outage.pause()
    assert clock.slept == [0]


def test_no_pause_goes_beyond_the_time_to_give_up(clock) -> None:
    outage = _outage(give_up_after_s=5)
    clock.now += 2
    outage.met(CapacityRefused("full", 3600))
    outage.pause()
    clock.now += 1
    outage.pause()
    assert clock.slept == [3, 0]


def test_it_is_given_up_when_it_lasted_too_long_and_the_cause_is_told(clock) -> None:
    outage = _outage(give_up_after_s=5)
    clock.now += 4.9
    outage.give_up(LOST)
    clock.now += 0.1
    with pytest.raises(ConnectionLost, match=r"gone.*gave up after 5 s") as caught:
        outage.give_up(LOST)
    assert caught.value.__cause__ is LOST


def test_each_wait_has_the_whole_time_again(clock) -> None:
    outage = _outage(give_up_after_s=5)
    clock.now += 4
    outage.await_progress()
    clock.now += 4
    outage.give_up(LOST)


def test_nothing_is_tried_where_nothing_may_be_waited_for(clock) -> None:
    outage = _outage(give_up_after_s=0)
    with pytest.raises(ConnectionLost, match="gave up after 0 s"):
        outage.give_up(LOST)
    assert clock.slept == []


def test_nobody_is_waited_for_who_has_gone(clock) -> None:
    outage = _outage()
    outage.wait_while(lambda: clock.now < 1002.5)
    outage.met(CapacityRefused("full", 9))
    outage.pause()
    assert sum(clock.slept) == pytest.approx(2.5, abs=0.2)  # of nine
    with pytest.raises(ConnectionLost, match=r"gone.*nobody waits") as caught:
        outage.give_up(LOST)
    assert caught.value.__cause__ is LOST


def test_who_is_still_there_is_waited_for_as_long_as_without_asking(clock) -> None:
    outage = _outage()
    outage.wait_while(lambda: True)
    outage.met(CapacityRefused("full", 9))
    outage.pause()
    assert sum(clock.slept) == pytest.approx(9)
    outage.give_up(LOST)


def test_an_outage_is_told_once_and_the_next_one_again(clock, caplog) -> None:
    outage = _outage()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            outage.met(LOST)
        assert len(caplog.records) == 1
        outage.await_progress()  # no reply yet
        outage.met(LOST)
        assert len(caplog.records) == 1
        outage.over()
        outage.met(LOST)
    assert len(caplog.records) == 2
    assert "gone" in caplog.text

"""What is a fault in a report, and what is only too much."""

import math

import pytest

from tests.faults.crowd import Tally
from tests.faults.measure import complaints, percentile
from tests.faults.report import Report


def report(**changes):
    facts = {
        "tally": Tally(generations=3),
        "quiet_p99": 0.010,
        "p99": 0.014,
        "warm": 1000,
        "after": 1040,
        "descriptors": (7, 7),
        "serves": True,
        "events": 1,
    }
    return Report("some", **(facts | changes))


def test_a_server_that_took_it_well_has_neither():
    assert report().harm() == []
    assert report().excess() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tally": Tally(generations=3, wrong=["x"])}, "wrong: x"),
        ({"tally": Tally(generations=3, lost=["y"])}, "lost: y"),
        ({"tally": Tally()}, "no generation came to its end"),
        ({"complaints": ["z"]}, "log: z"),
        ({"descriptors": (7, 8)}, "descriptors: 7 before, 8 after"),
        ({"serves": False}, "the server does not serve any more"),
        ({"events": 0}, "nothing was done to the server"),
    ],
)
def test_harm_is_told(changes, words):
    assert report(**changes).harm() == [words]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"p99": 0.016}, "p99 is 1.60 × undisturbed"),
        ({"p99": math.nan}, "no token came while it went on"),
        ({"after": 1100}, "memory grew to 1.100 × what it was"),
    ],
)
def test_excess_is_told(changes, words):
    assert report(**changes).excess() == [words]


def test_a_log_is_searched_for_what_nobody_foresaw():
    log = "INFO session a: open\nERROR x: incident 12\nTraceback (most recent call last):\nINFO b"
    assert complaints(log) == ["ERROR x: incident 12", "Traceback (most recent call last):"]


def test_percentiles():
    assert percentile([float(n) for n in range(100)], 0.99) == 99.0
    assert percentile([3.0, 1.0], 0.0) == 1.0
    assert percentile([], 0.5) != percentile([], 0.5)  # not a number

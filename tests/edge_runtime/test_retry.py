"""How a device waits: delays, what servers wish, and policies that make no sense."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from edge_runtime.retry import RetryPolicy, retry_after_s
from lambda_split.errors import (
    UsageError,
)


def test_delays_grow_to_their_limit_and_vary() -> None:
    policy = RetryPolicy(first_delay_s=0.1, factor=2, max_delay_s=3)
    assert policy.delay_s(0) == 0
    for attempt, ceiling in ((1, 0.1), (2, 0.2), (3, 0.4), (6, 3), (10_000, 3)):
        delays = [policy.delay_s(attempt) for _ in range(50)]
        assert all(ceiling / 2 <= delay <= ceiling for delay in delays)
        assert len(set(delays)) > 1


def test_those_who_are_sent_away_together_do_not_come_back_together() -> None:
    policy = RetryPolicy(first_delay_s=0.1, max_delay_s=3)
    spread = [policy.delay_s(0, spread=True) for _ in range(50)]
    assert all(0 <= delay <= 0.1 for delay in spread)
    assert len(set(spread)) > 1
    wished = [policy.delay_s(1, wished_s=10) for _ in range(50)]
    assert all(10 <= delay <= 12.5 for delay in wished)
    assert len(set(wished)) > 1
    assert all(policy.delay_s(9, wished_s=0.1) >= 1.5 for _ in range(50))  # a wish shortens nothing


NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 12 ", 12),
        ("3600", 3600),
        ("3601", 3600),
        ("9" * 5000, 3600),
        ("-1", 1),
        ("1.5", 1),
        ("\u0663", 1),  # a digit, but no ASCII one
        ("soon", 1),
        ("", 1),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), 0),
        (format_datetime(NOW + timedelta(days=1), usegmt=True), 3600),
        ("Fri, 32 Dec 2100 00:00:00 GMT", 1),
    ],
)
def test_what_a_retry_after_header_means(value, seconds) -> None:
    assert retry_after_s({"Retry-After": value}) == seconds


def test_a_date_to_retry_after() -> None:
    for zone in ("GMT", "-0000"):
        when = (datetime.now(UTC) + timedelta(seconds=60)).strftime("%a, %d %b %Y %H:%M:%S ")
        assert 55 <= retry_after_s({"Retry-After": when + zone}) <= 61
    assert retry_after_s({}) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_delay_s": -1},
        {"factor": 0.5},
        {"give_up_after_s": float("nan")},
        {"max_delay_s": float("inf")},
        {"connect_timeout_s": 0},
        {"reply_timeout_s": 0},
        {"reply_timeout_s": 1e10},
        {"connect_timeout_s": 1e10},
        {"give_up_after_s": 1e13},
        {"factor": 1e10},
        {"max_delay_s": "long"},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}|timeouts longer"):
        RetryPolicy(**wrong)

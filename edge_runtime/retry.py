"""How long the device waits, and how often it tries; what a server wishes about that."""

from __future__ import annotations

import dataclasses
import datetime as dt
import email.utils
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from edge_runtime.given_numbers import finite_number
from lambda_split.errors import UsageError

__all__ = ["RetryPolicy", "retry_after_s"]

_LONGEST_WISH_S = 3600  # what a server's header may ask for
# What clocks, sockets and powers take on any system: decades, and of timeouts a week and more.
_MOST = {
    "first_delay_s": 1_000_000_000,
    "factor": 1000,
    "max_delay_s": 1_000_000_000,
    "give_up_after_s": 1_000_000_000,
    "connect_timeout_s": 1_000_000,
    "reply_timeout_s": 1_000_000,
}
_UNSTATED_WISH_S = 1  # where it does not say, or not in a way that can be read


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait for the server, and how hard to try when the connection is lost.

    It holds for a session that was open once. The first connection is tried once, and a server that
    is full then is told to the caller, who knows better than this whether to wait.

    Attributes:
        first_delay_s: Pause before the second attempt; the first comes at once, or up to that much
            later where a server has sent all its devices away.
        factor: Each pause is that much longer than the one before, with full jitter.
        max_delay_s: The longest pause.
        give_up_after_s: Without any progress for that long, the error is raised.
        connect_timeout_s: For TCP, TLS, upgrade and welcome, each.
        reply_timeout_s: A reply that takes longer counts as a lost connection. It must exceed what
            the trunk needs for one chunk: a slower reply would be asked for again and again.

    Raises:
        UsageError: a value that is no finite number, or out of range: times of at most a billion
            seconds, timeouts of a million, a factor of a thousand.
    """

    first_delay_s: float = 0.05
    factor: float = 2.0
    max_delay_s: float = 5.0
    give_up_after_s: float = 300.0
    connect_timeout_s: float = 10.0
    reply_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = finite_number(field.name, getattr(self, field.name))
            most = _MOST[field.name]
            if not 0 <= value <= most:
                raise UsageError(f"{field.name} must be from 0 to {most:,}, not {value:g}")
            object.__setattr__(self, field.name, value)
        if not (self.factor >= 1 and self.connect_timeout_s > 0 and self.reply_timeout_s > 0):
            raise UsageError("factor must be at least 1, and timeouts longer than 0 s")

    def delay_s(self, attempt: int, *, wished_s: float = 0.0, spread: bool = False) -> float:
        """The pause before an attempt, the first being 0: exponential backoff with jitter.

        Args:
            attempt: 0 for the first one.
            wished_s: What a full server asked for: the pause is that at least, and up to a quarter
                longer, so that those who were sent away together don't come back together.
            spread: Also the first attempt comes a little later, for the same reason.
        """
        # The exponent is bounded so that a long outage cannot overflow the power.
        growth = self.factor ** min(max(attempt - 1, 0), 32)
        ceiling = min(self.max_delay_s, self.first_delay_s * growth)
        if attempt:
            pause = ceiling * _uniform(0.5, 1.0)
        else:
            pause = ceiling * _uniform(0.0, 1.0) if spread else 0.0
        return max(pause, wished_s * _uniform(1.0, 1.25))


def retry_after_s(headers: Mapping[str, str]) -> int:
    """The seconds of a response's ``Retry-After`` (RFC 9110, section 10.2.3), at most an hour.

    Args:
        headers: Of an HTTP response; the header is a number of seconds or a date.
    """
    try:
        value = headers.get("Retry-After", "").strip()
        if value.isascii() and value.isdigit():
            seconds = float(value[:12])  # longer ones are beyond the limit in any case
        else:
            when = email.utils.parsedate_to_datetime(value)
            if when.tzinfo is None:
                when = when.replace(tzinfo=dt.UTC)
            seconds = (when - dt.datetime.now(dt.UTC)).total_seconds()
    except (LookupError, ValueError, OverflowError):
        return _UNSTATED_WISH_S
    return math.ceil(min(max(seconds, 0.0), _LONGEST_WISH_S))


def _uniform(low: float, high: float) -> float:
    return random.uniform(low, high)  # noqa: S311  # spreads reconnects, guards nothing

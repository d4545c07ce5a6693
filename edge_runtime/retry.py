"""How long the device waits, and how often it tries."""

from __future__ import annotations

import dataclasses
import math
import random
from dataclasses import dataclass

from lambda_split.errors import UsageError

__all__ = ["RetryPolicy"]


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait for the server, and how hard to try when the connection is lost.

    Attributes:
        first_delay_s: Pause before the second attempt; the first comes at once.
        factor: Each pause is that much longer than the one before, with full jitter.
        max_delay_s: The longest pause.
        give_up_after_s: Without any progress for that long, the error is raised.
        connect_timeout_s: For TCP, TLS, upgrade and welcome, each.
        reply_timeout_s: A reply that takes longer counts as a lost connection. It must exceed what
            the trunk needs for one chunk: a slower reply would be asked for again and again.

    Raises:
        UsageError: a value that is not finite, or is out of range.
    """

    first_delay_s: float = 0.05
    factor: float = 2.0
    max_delay_s: float = 5.0
    give_up_after_s: float = 300.0
    connect_timeout_s: float = 10.0
    reply_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or value < 0:
                raise UsageError(f"{field.name} must be a finite number of at least 0, not {value}")
        if not (self.factor >= 1 and self.connect_timeout_s > 0 and self.reply_timeout_s > 0):
            raise UsageError("factor must be at least 1, and timeouts longer than 0 s")

    def delay_s(self, attempt: int) -> float:
        """The pause before an attempt, the first being 0: exponential backoff with jitter."""
        if attempt == 0:
            return 0.0
        # The exponent is bounded so that a long outage cannot overflow the power.
        ceiling = min(self.max_delay_s, self.first_delay_s * self.factor ** min(attempt - 1, 32))
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311  # spreads reconnects, guards nothing

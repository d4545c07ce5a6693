"""A time without a trunk: when to try again, and when to give up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edge_runtime.retry import RetryPolicy
from lambda_split.errors import CapacityRefused, ConnectionLost, LambdaSplitError, ServerError

__all__ = ["Outage"]

_LOOK_EVERY_S = 0.1

_logger = logging.getLogger(__name__)


class Outage:
    """Keeps count of attempts to come back, as a policy says.

    Args:
        policy: How long to wait, and how hard to try.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._interrupted = False
        self._wished_pause_s = 0.0  # by a server that is full
        self._spread = False  # whether others lost this server with us, who should not come at once
        self._attempt = 0
        self._deadline = 0.0
        self._wanted: Callable[[], bool] | None = None

    def wait_while(self, wanted: Callable[[], bool]) -> None:
        """Give up also where nobody waits any more.

        Args:
            wanted: Says so; asked in the waiting thread, some ten times a second.
        """
        self._wanted = wanted

    def await_progress(self) -> None:
        """From now on something is waited for: the time to give up counts anew."""
        self._deadline = time.monotonic() + self._policy.give_up_after_s
        self._attempt = 0

    def pause(self) -> None:
        """Sleep for as long as the next attempt has to wait."""
        pause_s = self._policy.delay_s(
            self._attempt, wished_s=self._wished_pause_s, spread=self._spread
        )
        self._sleep(max(0.0, min(pause_s, self._deadline - time.monotonic())))
        self._attempt += 1

    def met(self, error: LambdaSplitError) -> None:
        """The connection was lost, or an attempt failed."""
        if not self._interrupted:
            # Said once an outage, which lasts until there is a reply again.
            _logger.warning("session interrupted (%s), reconnecting", error)
        self._interrupted = True
        self._wished_pause_s = error.retry_after_s if isinstance(error, CapacityRefused) else 0.0
        self._spread = isinstance(error, ServerError)

    def give_up(self, error: LambdaSplitError) -> None:
        """Give up where it has lasted for too long.

        Raises:
            ConnectionLost: it has, or nobody waits any more.
        """
        if time.monotonic() >= self._deadline:
            reason = f"{error}; gave up after {self._policy.give_up_after_s:g} s"
            raise ConnectionLost(reason) from error
        if self._wanted is not None and not self._wanted():
            raise ConnectionLost(f"{error}; nobody waits any more") from error

    def over(self) -> None:
        """There was a reply again."""
        self._interrupted = False
        self.forget()  # a connection that is given up later, for whatever reason, is no outage

    def forget(self) -> None:
        """What was lost is not wanted any more: the next connection need not wait."""
        self._wished_pause_s, self._spread = 0.0, False

    def _sleep(self, seconds: float) -> None:
        if self._wanted is None:
            time.sleep(seconds)
            return
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and self._wanted():
            time.sleep(min(left, _LOOK_EVERY_S))

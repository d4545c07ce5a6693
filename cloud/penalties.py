"""Tokens whose connections were cut off have to wait, each time longer.

A connection that is cut off can come back at once, and to open a session costs the server more than
to abuse it. Without tokens nobody can be told apart: an address may be a proxy, and everybody's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Penalties"]

_FIRST_S = 1.0
_LONGEST_S = 60.0


@dataclass(frozen=True, slots=True)
class _Penalty:
    seconds: float
    until: float


class Penalties:
    """Who has to wait, by the names of tokens; used in the event loop only.

    The first time it is a second, then twice as long as the time before, up to a minute. Whoever
    behaves for a minute afterwards begins anew.

    Args:
        now: Seconds of a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._penalties: dict[str, _Penalty] = {}  # as many as there are tokens, at most

    def offend(self, name: str) -> None:
        """A connection with the token of that name was cut off.

        Those that are open at the same time and are cut off while it waits already count once.
        """
        now = self._now()
        before = self._penalties.get(name)
        if before is None or now >= before.until + _LONGEST_S:
            seconds = _FIRST_S
        elif now < before.until:
            return
        else:
            seconds = min(2 * before.seconds, _LONGEST_S)
        self._penalties[name] = _Penalty(seconds, now + seconds)

    def wait_s(self, name: str) -> float:
        """Seconds that the token of that name still has to wait; 0 where it has not."""
        penalty = self._penalties.get(name)
        return 0.0 if penalty is None else max(0.0, penalty.until - self._now())

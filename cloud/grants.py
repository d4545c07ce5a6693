"""Who is connected, with which grant, and what that still allows.

Used in the event loop only.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cloud.tokens import Grant
from lambda_split.counting import counted
from lambda_split.errors import CapacityRefused, TokenRevoked

__all__ = ["Guest", "Guests"]

_logger = logging.getLogger(__name__)
_RETRY_AFTER_S = 5


@dataclass(eq=False, slots=True)
class Guest:
    """A connection that the gate let in.

    Attributes:
        grant: What its token allows; None where the server wants no tokens.
        revoked: Set when that token has lost its validity.
    """

    grant: Grant | None
    _guests: Guests
    _settle: Callable[[], None]
    revoked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """Whose token it is, for logs."""
        return "anonymous" if self.grant is None else self.grant.name

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Hold one of the grant's sessions inside a ``with`` block.

        Raises:
            TokenRevoked: the token lost its validity since the upgrade.
            CapacityRefused: the token has as many sessions as it may have.
        """
        if self.revoked.is_set():
            raise TokenRevoked
        with self._guests.seat(self.grant):
            yield

    def review(self, current: Callable[[Grant], Grant | None]) -> None:
        """Notice where the token has lost its validity.

        Args:
            current: What a grant's token allows now.
        """
        if self.grant is None or self.revoked.is_set():
            return
        now = current(self.grant)
        if now is None or now.revoked:
            _logger.info("the token of %s was revoked: a connection ends", self.name)
            self.revoked.set()

    def settle(self) -> None:
        """The device was welcomed: from now on this connection is not in anyone's way."""
        self._settle()


class Guests:
    """All connections past the gate, and how many sessions each token has."""

    def __init__(self) -> None:
        self._all: set[Guest] = set()
        self._sessions: collections.Counter[str] = collections.Counter()

    @contextlib.contextmanager
    def admit(self, grant: Grant | None, settle: Callable[[], None]) -> Iterator[Guest]:
        """Know a connection for as long as the ``with`` block lasts.

        Args:
            grant: What its token allows.
            settle: Called when its device is welcomed.
        """
        guest = Guest(grant, self, settle)
        self._all.add(guest)
        try:
            yield guest
        finally:
            self._all.discard(guest)

    @contextlib.contextmanager
    def seat(self, grant: Grant | None) -> Iterator[None]:
        """Count a session of a grant; see :meth:`Guest.session`."""
        if grant is None:
            yield
            return
        limit = grant.max_sessions
        if limit is not None and self._sessions[grant.name] >= limit:
            most = f"the most is {counted(limit, 'session')} of this token"
            raise CapacityRefused(most, _RETRY_AFTER_S)
        self._sessions[grant.name] += 1
        try:
            yield
        finally:
            self._sessions[grant.name] -= 1
            if not self._sessions[grant.name]:
                del self._sessions[grant.name]

    def review(self, current: Callable[[Grant], Grant | None]) -> None:
        """Tell the connections whose token has lost its validity.

        Args:
            current: What a grant's token allows now.
        """
        for guest in self._all:
            guest.review(current)

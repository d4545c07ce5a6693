"""Which replica a new session goes to: the one with the most room for keys and values.

Ray Serve asks its replicas for their load about every second and tells every router. What a router
has placed since then is not in those figures, so it counts that itself, each session as an average
one: otherwise all sessions of that second would go to the same replica. Gateways number their
questions, and replicas say which they have seen, so no clock is needed to know what is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ray.serve.request_router import (
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

from cloud.replicas.load import Load

__all__ = ["FreeKVRouter", "Placements", "rank"]

# Keyword arguments of a question for a place.
AVOID = "avoid"  # ids of replicas that have refused this session
GATEWAY = "gateway"  # the gateway's id
NUMBER = "number"  # of its questions, growing
_Key = TypeVar("_Key", bound=Hashable)


@dataclass
class Placements:
    """Questions that a router has sent to a replica and that the replica has not seen yet.

    Attributes:
        unseen: Each a gateway and the question's number.
    """

    unseen: set[tuple[str, int]] = field(default_factory=set)

    def count(self, load: Load | None) -> int:
        """How many sessions the given load does not know of."""
        seen = {} if load is None else load.seen
        # One that got lost is forgotten with the next one that did not.
        self.unseen = {each for each in self.unseen if each[1] > seen.get(each[0], -1)}
        return len(self.unseen)


def rank(loads: dict[_Key, Load | None], placed: dict[_Key, int]) -> list[_Key]:
    """Replicas, the best first.

    Args:
        loads: Each replica's load; None for one that has not told it yet: it has just begun, and
            counts as empty.
        placed: Sessions that have been placed there and are not in its load.

    Returns:
        Those with a place for a session, by their free positions, then by their sessions; those
        without come last.
    """
    known = [load for load in loads.values() if load is not None]
    roomiest = max((load.total_positions for load in known), default=1)
    sessions = sum(load.sessions for load in known)
    used = sum(load.total_positions - load.free_positions for load in known)
    # Where no session holds anything yet, it is their number that decides.
    usual = used / sessions if sessions else 0.0

    def order(key: _Key) -> tuple[bool, float, int]:
        load, extra = loads[key], placed.get(key, 0)
        if load is None:
            return False, extra * usual - roomiest, extra
        sessions = load.sessions + extra
        return sessions >= load.max_sessions, extra * usual - load.free_positions, sessions

    return sorted(loads, key=order)


@dataclass
class _Choice:
    placements: dict[ReplicaID, Placements] = field(default_factory=dict)

    def __call__(
        self, candidates: Sequence[RunningReplica], avoid: Collection[str]
    ) -> list[RunningReplica]:
        by_id = {each.replica_id: each for each in candidates}
        self.placements = {each: self.placements.get(each, Placements()) for each in by_id}
        loads = {each: Load.from_stats(by_id[each].routing_stats) for each in by_id}
        placed = {each: self.placements[each].count(loads[each]) for each in by_id}
        ranked = [by_id[each] for each in rank(loads, placed)]
        # A stable sort: those that have refused this session come last, in their order.
        return sorted(ranked, key=lambda each: each.replica_id.unique_id in avoid)


class FreeKVRouter(RequestRouter):
    """Places requests for a session by the free memory of the replicas. Made by Ray Serve."""

    def initialize_state(self, **settings: object) -> None:
        """Called by Serve once the router is made."""
        del settings
        self._choice = _Choice()

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Rank the replicas, each a rank of its own."""
        avoid: Collection[str] = ()
        if pending_request is not None:
            avoid = pending_request.kwargs.get(AVOID, ())
            # Serve waits between attempts only where this is set.
            pending_request.routing_context.should_backoff = True
        return [[each] for each in self._choice(candidate_replicas, avoid)]

    def on_request_routed(
        self,
        pending_request: PendingRequest,
        replica_id: ReplicaID,
        result: object,  # noqa: ARG002 - Serve's signature
    ) -> None:
        """Called by Serve when a replica was chosen."""
        placements = self._choice.placements.get(replica_id)
        if placements is not None:
            question = pending_request.kwargs
            placements.unseen.add((question[GATEWAY], question[NUMBER]))

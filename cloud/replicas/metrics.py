"""What a gateway counts, and what its replicas do, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal

from prometheus_client import Counter, Gauge, Metric

from cloud.metrics import Metrics

__all__ = ["GatewayMetrics", "own_families"]

# What happens at the engine. The rest, sessions and bytes, gateways count: it must not count twice.
_OF_REPLICAS: Final = frozenset(
    f"lambda_split_{name}"
    for name in (
        *("tokens", "step_seconds", "step_sessions", "step_tokens"),
        *("kv_used_blocks", "kv_blocks", "kv_block_positions"),
        *("evicted_sessions", "replays", "replayed_positions", "rejected_forwards"),
    )
)


def own_families(metrics: Metrics) -> list[Metric]:
    """What a replica counts and a gateway cannot."""
    return [family for family in metrics.collect() if family.name in _OF_REPLICAS]


class GatewayMetrics(Metrics):
    """A server's metrics, as far as a gateway has them, its own, and those of replicas."""

    def __init__(self) -> None:
        super().__init__()
        self._told: tuple[tuple[str, list[Metric]], ...] = ()
        self._moved = Counter(
            "lambda_split_gateway_sessions_moved",
            "Sessions whose replica drained or was lost, so that their devices come back.",
            ["reason"],
            registry=self._registry,
        )
        self._replicas = Gauge(
            "lambda_split_gateway_replicas", "Replicas that serve.", registry=self._registry
        )

    def moved(self, *, reason: Literal["drained", "lost"]) -> None:
        """A session's replica went."""
        self._moved.labels(reason).inc()

    def replicas(self, count: int) -> None:
        """So many replicas serve."""
        self._replicas.set(count)

    def replicas_told(self, told: Iterable[tuple[str, list[Metric]]]) -> None:
        """What replicas count, each with its id; whoever is not among them is gone."""
        self._told = tuple(told)

    def collect(self) -> Iterator[Metric]:
        """The gateway's own, and the replicas' with a label ``replica``."""
        for family in super().collect():
            if family.name not in _OF_REPLICAS:
                yield family
        families: dict[str, Metric] = {}
        for replica, counted in self._told:
            for family in counted:
                merged = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                merged.samples += [
                    sample._replace(labels={**sample.labels, "replica": replica})
                    for sample in family.samples
                ]
        yield from families.values()

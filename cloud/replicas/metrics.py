"""What a gateway counts, for Prometheus."""

from __future__ import annotations

from typing import Literal

from prometheus_client import Counter, Gauge

from cloud.metrics import Metrics

__all__ = ["GatewayMetrics"]


class GatewayMetrics(Metrics):
    """A server's metrics, as far as a gateway has them, and its own."""

    def __init__(self) -> None:
        super().__init__()
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

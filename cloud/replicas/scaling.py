"""How many replicas there should be.

Run by Ray Serve's controller, which applies the bounds and delays that the deployment sets and then
starts or drains replicas itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

__all__ = ["TARGET_USE", "USED", "replicas_for", "replicas_wanted"]

USED = "used"  # the metric that replicas report: Load.used
# Room for sessions to grow, and for those of a replica that dies, until another one has started.
TARGET_USE = 0.7


def replicas_for(used: Iterable[float]) -> int:
    """Replicas that carry a load so that each is used to :data:`TARGET_USE`.

    Args:
        used: What each of the replicas there are is used to, 0 … 1.

    Returns:
        At least 1.
    """
    # Rounding errors of a sum must not start a replica.
    return max(1, math.ceil(sum(used) / TARGET_USE - 1e-6))


def replicas_wanted(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """Ray Serve's autoscaling policy: the number of replicas, and what to remember (nothing)."""
    latest = (context.aggregated_metrics or {}).get(USED, {})
    running = set(context.running_replicas)
    wanted = replicas_for(value for replica, value in latest.items() if replica in running)
    low, high = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
    return min(max(wanted, low), high), {}

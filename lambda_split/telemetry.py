"""No library of ours calls home.

onnxruntime's builds from 1.29 on record usage events and send them to its vendor unless
``ORT_DISABLE_TELEMETRY`` is set before it is imported (its own ``disable_telemetry_events()`` comes
too late). A device that promises that nothing but hidden states leaves it cannot have that, so the
packages that use onnxruntime call this before they import it.
"""

from __future__ import annotations

import os

__all__ = ["disable_telemetry"]


def disable_telemetry() -> None:
    """Switch onnxruntime's telemetry off in this process, unless the user has decided already."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

"""Sessions for the tests of replaying, and what they send."""

from __future__ import annotations

import numpy as np

from edge_runtime.connection import Endpoint
from edge_runtime.replay import ReplayingTrunk
from edge_runtime.retry import RetryPolicy
from edge_runtime.stats import Meter
from lambda_split.bundle import Geometry, Manifest, ModelSource
from lambda_split.split import Split
from lambda_split.wire.frames import Codec

__all__ = ["MANIFEST", "ROWS", "open_trunk"]

_WIDTH = 8
MANIFEST = Manifest(
    schema=1,
    kind="causal-lm",
    producer="tests",
    model=ModelSource(id="none", family="none", fingerprint="0123456789abcdef"),
    split=Split(1, 1),
    geometry=Geometry(hidden_size=_WIDTH, layer_count=3, vocab_size=10, max_positions=1000),
    graphs={},
    files={},
)
ROWS = np.arange(100 * _WIDTH, dtype=np.float32).reshape(100, _WIDTH)


def open_trunk(
    url: str, *, chunk_tokens: int = 32, manifest=MANIFEST, retry=None, **policy
) -> ReplayingTrunk:
    retry = retry or RetryPolicy(**{"max_delay_s": 0.05, "give_up_after_s": 60.0, **policy})
    trunk = ReplayingTrunk(
        Endpoint(url, None, retry.connect_timeout_s, retry.reply_timeout_s),
        manifest,
        Meter(),
        codec=Codec.FP16,
        max_positions=1000,
        chunk_tokens=chunk_tokens,
        retry=retry,
    )
    trunk.connect()
    return trunk

"""The engine: where sessions' chunks meet the trunk's layers."""

from cloud.engine.batching import BatchingEngine, required_attention
from cloud.engine.contract import Engine, Outcome, Piece, Result, SessionCache, Stepping, Work
from cloud.engine.kv_pool import KVGeometry, KVPool

__all__ = [
    "BatchingEngine",
    "Engine",
    "KVGeometry",
    "KVPool",
    "Outcome",
    "Piece",
    "Result",
    "SessionCache",
    "Stepping",
    "Work",
    "required_attention",
]

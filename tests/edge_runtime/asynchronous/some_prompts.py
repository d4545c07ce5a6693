"""Prompts that the tests of the asynchronous text generator give, and how long it waits."""

from __future__ import annotations

from edge_runtime import RetryPolicy

__all__ = ["LONG", "OTHER", "PROMPT", "RETRY"]

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
OTHER = [2, 7, 1, 8, 2, 8]
LONG = [number % 37 for number in range(48)]
RETRY = RetryPolicy(max_delay_s=0.05, give_up_after_s=10.0, reply_timeout_s=30.0)

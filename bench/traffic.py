"""How many bytes should cross, against how many do."""

from __future__ import annotations

from bench.results import Bytes, Run
from lambda_split.split import Split

__all__ = ["hidden_bytes", "overhead", "positions_crossing"]

_VALUE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


def positions_crossing(run: Run, split: Split, *, everything: bool) -> Bytes:
    """Positions whose hidden states cross in a generation, each way.

    Up go the prompt's and each new token's but the last one's, or all of them again for each token.
    As many come back, but only the last one of each answer where the tail has no layers.
    """
    prompt, new = run.prompt_tokens, run.new_tokens
    up = sum(range(prompt, prompt + new)) if everything else prompt + new - 1
    return Bytes(up, up if split.tail_layers else new)


def hidden_bytes(positions: Bytes, hidden_size: int, codec: str) -> Bytes:
    """What the hidden states of so many positions take."""
    row = hidden_size * _VALUE_BYTES[codec]
    return Bytes(positions.up * row, positions.down * row)


def overhead(crossed: Bytes, hidden: Bytes) -> float:
    """By how much of the hidden states' bytes the socket carried more, both ways together."""
    return (crossed.up + crossed.down) / (hidden.up + hidden.down) - 1

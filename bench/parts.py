"""Where a token's time goes: medians over the generations of a case."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.results import Run

__all__ = ["TokenParts", "run_parts", "token_parts"]


@dataclass(frozen=True, kw_only=True)
class TokenParts:
    """One token after the first: seconds in each part, and bytes at the socket.

    Attributes:
        seconds: All parts together; of medians, the median of the wholes.
        head_s: In the head.
        link_s: Waiting, less the trunk's time.
        trunk_s: In the trunk.
        tail_s: In the tail.
        rest_s: Elsewhere on the device: encoding, sending, sampling, text.
        up: Bytes towards the cloud.
        down: Bytes back.
        round_trips: Answers that were waited for.
    """

    seconds: float
    head_s: float
    link_s: float
    trunk_s: float
    tail_s: float
    rest_s: float
    up: float
    down: float
    round_trips: float


def token_parts(runs: Sequence[Run]) -> TokenParts:
    """Medians over generations of at least two tokens each."""
    return TokenParts(
        **{
            name: statistics.median(getattr(run_parts(run), name) for run in runs)
            for name in TokenParts.__dataclass_fields__
        }
    )


def run_parts(run: Run) -> TokenParts:
    """The mean of one generation's tokens after the first."""
    rest, count = run.rest, run.new_tokens - 1
    return TokenParts(
        seconds=rest.seconds / count,
        head_s=rest.head_s / count,
        link_s=rest.link_s / count,
        trunk_s=rest.trunk_s / count,
        tail_s=rest.tail_s / count,
        rest_s=rest.rest_s / count,
        # The socket was read at the end only: its bytes are those of the messages, by their share.
        up=run.socket.up * _share(rest.bytes_up, run.first.bytes_up) / count,
        down=run.socket.down * _share(rest.bytes_down, run.first.bytes_down) / count,
        round_trips=rest.round_trips / count,
    )


def _share(part: int, other: int) -> float:
    return part / (part + other) if part else 0.0

"""What one generation cost: time in each part, bytes and round trips."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass

from edge_runtime.notebook import Fact, Share, as_duration, card, shares_bar
from lambda_split.counting import counted

__all__ = ["GenerationStats", "Meter", "Stopwatch"]


@dataclass(frozen=True)
class GenerationStats:
    """The cost of one generation, in seconds and bytes.

    Time that the caller takes between two pieces of text does not count. While a prompt goes in
    pieces, head, link, trunk and tail work at the same time, so that their times may add up to more
    than the total.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        cached_tokens: Those of them that all three parts still held, so nothing was sent for them.
        completion_tokens: Tokens that were sampled.
        ttft_s: Time to the first sampled token.
        total_s: Time to the end of the text.
        head_s: In the head.
        link_s: Waiting for replies, less the trunk's own time: the network and queueing. What
            crosses the link while the device computes does not count.
        trunk_s: In the trunk, as the server reports it.
        tail_s: In the tail.
        bytes_up: Message bytes sent, replays included.
        bytes_down: Message bytes received.
        round_trips: Runs through the trunk that had to be waited for: one for the prompt, however
            many pieces it goes in, and one for each token after it.
        reconnects: Times the connection was lost and the session replayed.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    ttft_s: float = 0.0
    total_s: float = 0.0
    head_s: float = 0.0
    link_s: float = 0.0
    trunk_s: float = 0.0
    tail_s: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    round_trips: int = 0
    reconnects: int = 0

    @property
    def tokens_per_s(self) -> float:
        """Decode speed after the first token; 0 where there was only one."""
        after_first = self.total_s - self.ttft_s
        if self.completion_tokens < 2 or after_first <= 0:
            return 0.0
        return (self.completion_tokens - 1) / after_first

    @property
    def shares(self) -> tuple[Share, ...]:
        """The time of each part, in the order of a token's way."""
        return (
            Share("head", self.head_s),
            Share("link", self.link_s),
            Share("trunk", self.trunk_s),
            Share("tail", self.tail_s),
        )

    @property
    def facts(self) -> list[Fact]:
        """What people want to know of it, by name."""
        held = f" ({self.cached_tokens:,} held)" if self.cached_tokens else ""
        facts = [
            ("prompt", counted(self.prompt_tokens, "token") + held),
            ("new", counted(self.completion_tokens, "token")),
            ("first after", as_duration(self.ttft_s)),
            ("all after", as_duration(self.total_s)),
        ]
        if self.tokens_per_s:
            facts.append(("then", f"{self.tokens_per_s:.1f} tokens/s"))
        facts += [
            ("up", counted(self.bytes_up, "byte")),
            ("down", counted(self.bytes_down, "byte")),
            ("waited for", counted(self.round_trips, "round trip")),
        ]
        if self.reconnects:
            facts.append(("lost and found", counted(self.reconnects, "connection")))
        return facts

    def _repr_html_(self) -> str:
        return card("GenerationStats", self.facts, shares_bar(self.shares, self.total_s))

    def __add__(self, other: GenerationStats) -> GenerationStats:
        return GenerationStats(
            **{
                field.name: getattr(self, field.name) + getattr(other, field.name)
                for field in dataclasses.fields(GenerationStats)
            }
        )

    def __sub__(self, other: GenerationStats) -> GenerationStats:
        return GenerationStats(
            **{
                field.name: getattr(self, field.name) - getattr(other, field.name)
                for field in dataclasses.fields(GenerationStats)
            }
        )

    def summary(self) -> str:
        """A few lines for people."""
        decoded = max(self.completion_tokens, 1)
        parts = ", ".join(
            f"{name} {seconds * 1000 / decoded:.1f}"
            for name, seconds in (
                ("head", self.head_s),
                ("link", self.link_s),
                ("trunk", self.trunk_s),
                ("tail", self.tail_s),
            )
        )
        cached = f" ({self.cached_tokens} still cached)" if self.cached_tokens else ""
        speed = f"{self.tokens_per_s:.1f} tokens/s, " if self.tokens_per_s else ""
        replayed = f", {counted(self.reconnects, 'reconnect')}" if self.reconnects else ""
        return (
            f"{counted(self.prompt_tokens, 'prompt token')}{cached}, "
            f"{counted(self.completion_tokens, 'new token')}, {speed}"
            f"first token after {self.ttft_s * 1000:.0f} ms\n"
            f"ms per new token: {parts}\n"
            f"wire: {self.bytes_up:,} bytes up, {self.bytes_down:,} bytes down, "
            f"{counted(self.round_trips, 'round trip')}{replayed}"
        )


class Meter:
    """Adds costs up while a session runs; differences of two readings are one generation's."""

    def __init__(self) -> None:
        self.cached_tokens = 0
        self.head_s = 0.0
        self.link_s = 0.0
        self.trunk_s = 0.0
        self.tail_s = 0.0
        self.bytes_up = 0
        self.bytes_down = 0
        self.round_trips = 0
        self.reconnects = 0

    @contextlib.contextmanager
    def head(self) -> Iterator[None]:
        """Time a call of the head."""
        begin = time.perf_counter()
        yield
        self.head_s += time.perf_counter() - begin

    @contextlib.contextmanager
    def tail(self) -> Iterator[None]:
        """Time a call of the tail."""
        begin = time.perf_counter()
        yield
        self.tail_s += time.perf_counter() - begin

    def waited(self, seconds: float, trunk_micros: int) -> None:
        """A reply was waited for; the part of it that the trunk computed is not the link's."""
        self.trunk_s += trunk_micros / 1e6
        self.link_s += max(0.0, seconds - trunk_micros / 1e6)

    def reading(self) -> GenerationStats:
        """The totals so far."""
        return GenerationStats(
            cached_tokens=self.cached_tokens,
            head_s=self.head_s,
            link_s=self.link_s,
            trunk_s=self.trunk_s,
            tail_s=self.tail_s,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            round_trips=self.round_trips,
            reconnects=self.reconnects,
        )

    def since(self, earlier: GenerationStats) -> GenerationStats:
        """What was added after an earlier reading."""
        return self.reading() - earlier


class Stopwatch:
    """Adds up the time spent in :meth:`running` blocks."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._begin: float | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let the clock run."""
        self._begin = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - self._begin
            self._begin = None

    @property
    def seconds(self) -> float:
        """The time so far, that of a block that is running included."""
        running = 0.0 if self._begin is None else time.perf_counter() - self._begin
        return self._seconds + running

"""What a server counts, for Prometheus."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    Metric,
    ProcessCollector,
    generate_latest,
)

from lambda_split import __version__
from lambda_split.errors import RequestError, WireError

__all__ = ["Metrics"]

_OTHER: Final = "other"
_STEP_SECONDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_STEP_SESSIONS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_STEP_TOKENS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_SESSION_SECONDS: Final = (0.1, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400)


def _codes(root: type[WireError]) -> Iterator[str]:
    """The codes of an error's subclasses: all label values that there can be."""
    for error in root.__subclasses__():
        if "code" in vars(error):
            yield error.code
        yield from _codes(error)


class Metrics:
    """One server's metrics, in a registry of their own. All methods may be called in any thread.

    Label values are taken from lists of known ones: nothing that a device sends can add a series.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._build = Info("lambda_split_build", "What is running.", registry=self._registry)
        self._build.info({"version": __version__, "python": platform.python_version()})
        self._count_sessions()
        self._count_steps()
        self._count_traffic()

    def _count_sessions(self) -> None:
        registry = self._registry
        self._open = Gauge("lambda_split_sessions_open", "Sessions now.", registry=registry)
        self._opened = Counter("lambda_split_sessions", "Sessions opened.", registry=registry)
        self._session_seconds = Histogram(
            "lambda_split_session_seconds",
            "How long sessions were open.",
            buckets=_SESSION_SECONDS,
            registry=registry,
        )
        http_codes = {"http-401", "http-403", "http-429", "http-503"}
        self._refusals = _Labelled(
            Counter(
                "lambda_split_refused",
                "Connections that got no session, by error code or HTTP status.",
                ["reason"],
                registry=registry,
            ),
            http_codes | (set(_codes(WireError)) - set(_codes(RequestError))),
        )
        self._evictions = _Labelled(
            Counter(
                "lambda_split_evicted_sessions",
                "Sessions that lost their place: idle, or under pressure.",
                ["reason"],
                registry=registry,
            ),
            {"idle", "pressure"},
        )
        self._replays = Counter(
            "lambda_split_replays", "Sessions that began with a replay.", registry=registry
        )
        self._replayed = Counter(
            "lambda_split_replayed_positions", "Positions replayed.", registry=registry
        )

    def _count_steps(self) -> None:
        registry = self._registry
        self._tokens = Counter(
            "lambda_split_tokens",
            "Tokens run through the trunk, by what they were.",
            ["kind"],
            registry=registry,
        )
        self._decode_tokens = self._tokens.labels("decode")
        self._prompt_tokens = self._tokens.labels("prompt")
        self._step_seconds = Histogram(
            "lambda_split_step_seconds",
            "Time of an engine step.",
            buckets=_STEP_SECONDS,
            registry=registry,
        )
        self._step_sessions = Histogram(
            "lambda_split_step_sessions",
            "Sessions in an engine step.",
            buckets=_STEP_SESSIONS,
            registry=registry,
        )
        self._step_tokens = Histogram(
            "lambda_split_step_tokens",
            "Tokens in an engine step.",
            buckets=_STEP_TOKENS,
            registry=registry,
        )
        self._used_blocks = Gauge(
            "lambda_split_kv_used_blocks", "Blocks of keys and values in use.", registry=registry
        )
        self._total_blocks = Gauge(
            "lambda_split_kv_blocks", "Blocks of keys and values in all.", registry=registry
        )
        self._block_positions = Gauge(
            "lambda_split_kv_block_positions", "Positions in a block.", registry=registry
        )

    def _count_traffic(self) -> None:
        registry = self._registry
        self._received = Counter(
            "lambda_split_received_bytes", "Bytes of messages from devices.", registry=registry
        )
        self._sent = Counter(
            "lambda_split_sent_bytes", "Bytes of messages to devices.", registry=registry
        )
        self._rejections = _Labelled(
            Counter(
                "lambda_split_rejected_forwards",
                "Forwards rejected while their sessions went on, by error code.",
                ["code"],
                registry=registry,
            ),
            set(_codes(RequestError)),
        )
        self._lost_lines = Counter(
            "lambda_split_lost_log_lines",
            "Log lines that could not be written.",
            registry=registry,
        )

    def session_opened(self) -> None:
        """A session has its place."""
        self._opened.inc()
        self._open.inc()

    def session_closed(self, *, seconds: float) -> None:
        """A session ended after that time."""
        self._open.dec()
        self._session_seconds.observe(seconds)

    def refused(self, *, reason: str) -> None:
        """A connection got no session: an error code, ``http-401`` or ``http-503``."""
        self._refusals.inc(reason)

    def evicted(self, *, reason: Literal["idle", "pressure"]) -> None:
        """A session lost its place."""
        self._evictions.inc(reason)

    def replayed(self, *, positions: int) -> None:
        """A device began with a replay of so many positions."""
        self._replays.inc()
        self._replayed.inc(positions)

    def received(self, *, nbytes: int) -> None:
        """A message came."""
        self._received.inc(nbytes)

    def sent(self, *, nbytes: int) -> None:
        """A message went out."""
        self._sent.inc(nbytes)

    def step(
        self, *, sessions: int, decode_tokens: int, prompt_tokens: int, seconds: float
    ) -> None:
        """The engine ran a step."""
        self._step_seconds.observe(seconds)
        self._step_sessions.observe(sessions)
        self._step_tokens.observe(decode_tokens + prompt_tokens)
        self._decode_tokens.inc(decode_tokens)
        self._prompt_tokens.inc(prompt_tokens)

    def kv(self, *, used_blocks: int, total_blocks: int, block_positions: int) -> None:
        """How full the pool of keys and values is."""
        self._used_blocks.set(used_blocks)
        self._total_blocks.set(total_blocks)
        self._block_positions.set(block_positions)

    def rejected(self, *, code: str) -> None:
        """A forward was rejected with that error code; its session goes on."""
        self._rejections.inc(code)

    def log_line_lost(self) -> None:
        """A log line could not be written."""
        self._lost_lines.inc()

    def collect(self) -> Iterator[Metric]:
        """All of it now."""
        yield from self._registry.collect()

    def render(self) -> bytes:
        """All of it in Prometheus' text format, version 0.0.4."""
        return generate_latest(self)


class _Labelled:
    """A counter with one label, whose values are known beforehand.

    Each begins at zero, since a series that appears with its first event hides it from ``rate``.
    """

    def __init__(self, counter: Counter, values: set[str]) -> None:
        self._children = {value: counter.labels(value) for value in sorted(values | {_OTHER})}

    def inc(self, value: str) -> None:
        self._children.get(value, self._children[_OTHER]).inc()

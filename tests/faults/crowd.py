"""Honest devices: each generates what has a known end, over and over, and compares."""

from __future__ import annotations

import abc
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from edge_runtime import TextGenerator
from lambda_split.errors import CapacityRefused, LambdaSplitError, LinkError, ServerError
from tests.faults.ground import Ground, open_generator

__all__ = ["Crowd", "Devices", "Tally"]

_OPEN_WITHIN_S = 120.0  # a server may be full, or starting, for some time


@dataclass
class Tally:
    """What the devices of a crowd saw, all together.

    Attributes:
        generations: Those that came to their end.
        tokens: Their tokens.
        wrong: Generations that came out otherwise than undisturbed.
        lost: Generations or sessions that ended with an error.
        waits: Times that a device was not let in at once.
        reconnects: Times that a session was lost and replayed.
        gaps: When a token came, and the seconds since the one before.
    """

    generations: int = 0
    tokens: int = 0
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    waits: int = 0
    reconnects: int = 0
    gaps: list[tuple[float, float]] = field(default_factory=list)

    def gaps_between(self, begin: float, end: float) -> list[float]:
        """The seconds per token of a time, by the performance counter."""
        return [gap for when, gap in list(self.gaps) if begin <= when < end]


class Devices(abc.ABC):
    """Devices in threads, from the start of a ``with`` block to its end.

    Attributes:
        tally: What they see, all together.
    """

    def __init__(self, clients: int) -> None:
        self.tally = Tally()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._live, args=(number,)) for number in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @abc.abstractmethod
    def _live(self, number: int) -> None:
        """What a device does until the end."""


class Crowd(Devices):
    """Devices that generate.

    At the end each finishes the generation that it is in, so that nothing stays uncompared.
    """

    def __init__(
        self, ground: Ground, urls: Sequence[str], clients: int, *, generations_per_session: int = 4
    ) -> None:
        """Client number *i* connects to ``urls[i % len(urls)]``."""
        super().__init__(clients)
        self._ground = ground
        self._urls = urls
        self._per_session = generations_per_session

    def _live(self, number: int) -> None:
        url, turn = self._urls[number % len(self._urls)], number
        while not self._stopping.is_set():
            try:
                with self._open(url) as generator:
                    for _ in range(self._per_session):
                        if self._stopping.is_set():
                            return
                        self._generate(generator, turn % len(self._ground.scripts))
                        turn += 1
            except LambdaSplitError as error:
                with self._lock:
                    self.tally.lost.append(f"{type(error).__name__}: {error}")
                if self._stopping.wait(0.5):
                    return

    def _open(self, url: str) -> TextGenerator:
        deadline = time.monotonic() + _OPEN_WITHIN_S
        while True:
            try:
                return open_generator(self._ground.bundle, url)
            except (LinkError, ServerError, CapacityRefused):
                if time.monotonic() > deadline:
                    raise
                with self._lock:
                    self.tally.waits += 1
                self._stopping.wait(0.25)

    def _generate(self, generator: TextGenerator, which: int) -> None:
        script = self._ground.scripts[which]
        before: float | None = None
        stream = generator.stream(
            list(script.prompt), max_new_tokens=script.new_tokens, sampling=script.sampling
        )
        for _ in stream:
            now = time.perf_counter()
            if before is not None:
                self.tally.gaps.append((now, now - before))
            before = now
        result = stream.result
        with self._lock:
            self.tally.generations += 1
            self.tally.tokens += len(result.token_ids)
            self.tally.reconnects += result.stats.reconnects
            if result.token_ids != self._ground.expected[which]:
                self.tally.wrong.append(f"script {which}: {result.token_ids}")

"""One client of a load run: a real device that does its errands, one after the other."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge_runtime import RetryPolicy, RuntimeSettings, TextGenerator
from lambda_split.bundle import Bundle
from lambda_split.errors import CapacityRefused, LinkError, ServerError, SessionEvicted
from tests.load.plan import Case, Errand
from tests.load.report import Report

__all__ = ["Client", "Output", "counted_evictions"]

_RETRY = RetryPolicy(first_delay_s=0.01, max_delay_s=0.5, give_up_after_s=120.0)
_LONGEST_PAUSE_S = 0.5  # before another try to open a session
_OPEN_WITHIN_S = 120.0


@dataclass(frozen=True)
class Output:
    """What an errand brought: tokens, to the end or left before."""

    case: Case
    tokens: tuple[int, ...]
    whole: bool


class Client:
    """Does errands against one server.

    Args:
        url: The server's, or that of a proxy before it.
        bundles: One for each split.
        chunk_tokens: Prompts go in pieces of that many tokens.
        max_positions: Of its sessions.

    Attributes:
        outputs: What the errands brought, to be judged later.
        report: What it saw.
    """

    def __init__(
        self, url: str, bundles: Sequence[Bundle], *, chunk_tokens: int, max_positions: int
    ) -> None:
        self._url = url
        self._bundles = bundles
        self._chunk_tokens = chunk_tokens
        self._max_positions = max_positions
        self._held = 0  # positions of the session
        self.outputs: list[Output] = []
        self.report = Report()

    def run(self, errands: Sequence[Errand]) -> None:
        """Do all of them; what goes wrong is in the report."""
        with contextlib.ExitStack() as lifetime:
            generator = None
            try:
                for errand in errands:
                    if generator is None or errand.opens is not None:
                        lifetime.close()
                        generator = self._open(errand.opens or 0)
                        lifetime.callback(generator.close)
                    self._do(generator, errand)
            except Exception as error:  # noqa: BLE001 - it is what the run is there to find
                self.report.failures.append(f"{type(error).__name__}: {error}")

    def _open(self, split: int) -> TextGenerator:
        deadline = time.monotonic() + _OPEN_WITHIN_S
        self._held = 0
        while True:
            try:
                generator = TextGenerator.open(
                    self._bundles[split],
                    self._url,
                    codec="fp32",
                    max_positions=self._max_positions,
                    chunk_tokens=self._chunk_tokens,
                    runtime=RuntimeSettings(threads=1),
                    retry=_RETRY,
                )
            except (CapacityRefused, LinkError, ServerError) as error:
                # Opening is tried once: a full server, or a cut in the handshake, is told.
                if time.monotonic() > deadline:
                    raise
                pause_s = 0.01
                if isinstance(error, CapacityRefused):
                    self.report.refusals += 1
                    pause_s = min(error.retry_after_s, _LONGEST_PAUSE_S)
                time.sleep(pause_s)
            else:
                self.report.sessions += 1
                return generator

    def _do(self, generator: TextGenerator, errand: Errand) -> None:
        case = errand.case
        stream = generator.stream(
            list(case.prompt), max_new_tokens=case.new_tokens, sampling=case.sampling
        )
        pieces = 0
        with stream:
            for _ in stream:
                pieces += 1
                if pieces == errand.leaves_after:
                    break
        result = stream.result
        is_left = result.finish_reason == "cancelled"
        self.outputs.append(Output(case, result.token_ids, not is_left))
        self.report.generations += 1
        self.report.tokens += len(result.token_ids)
        self.report.cancels += is_left
        self.report.rollbacks += 0 < result.stats.cached_tokens < self._held
        self.report.reconnects += result.stats.reconnects
        # The last token sampled is never run.
        self._held = len(case.prompt) + len(result.token_ids) - 1


class _Evictions(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        reasons = record.args if isinstance(record.args, tuple) else ()
        self.count += any(isinstance(reason, SessionEvicted) for reason in reasons)


@contextlib.contextmanager
def counted_evictions() -> Iterator[_Evictions]:
    """Counts the sessions interrupted by an eviction, as the device side logs them.

    That log is quiet meanwhile: interruptions are what a load run makes.
    """
    logger = logging.getLogger("edge_runtime.outage")
    handler = _Evictions()
    propagates = logger.propagate
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates

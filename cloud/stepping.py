"""One step of the engine for the jobs in it: each gets its result, or what went wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from cloud.engine import Piece, Stepping
from cloud.jobs import Job

__all__ = ["AnyEngine", "run_step"]

_logger = logging.getLogger(__name__)
# Pieces and results are between an engine and its own requests; nothing here looks into them.
AnyEngine: TypeAlias = Stepping[Any, Any]


def run_step(engine: AnyEngine, batch: Sequence[tuple[Job, Piece]]) -> None:
    """Run pieces, memory taken for them, and give each job what came of its own.

    A job whose last piece has run gets its reply; one that failed gets its error, and its session
    is as it was before.
    """
    outcomes = _outcomes(engine, [piece for _, piece in batch])
    for job, piece in batch:
        _settle(engine, job, piece, next(outcomes))


def _outcomes(engine: AnyEngine, pieces: Sequence[Piece]) -> Iterator[Any]:
    """The engine's outcomes; whatever happens to it, one for each piece."""
    left = len(pieces)
    try:
        for outcome in engine.step(pieces):
            left -= 1
            yield outcome
        fault: Exception = RuntimeError("the engine left pieces of a step unanswered")
    except Exception as error:
        _logger.exception("the engine failed in a step")
        fault = error
    for _ in range(left):
        yield fault


def _settle(engine: AnyEngine, job: Job, piece: Piece, outcome: object) -> None:
    if isinstance(outcome, Exception):
        job.fail(outcome)
        return
    job.add(outcome, piece.tokens)
    if job.left:
        return
    try:
        job.succeed()
    except Exception as error:  # noqa: BLE001 - handed to the one who sent this forward
        job.fail(_revert(engine, job) or error)


def _revert(engine: AnyEngine, job: Job) -> Exception | None:
    """Take back the session's last forward; the fault that keeps it from being taken back."""
    try:
        engine.revert(job.session)
    except Exception as error:
        _logger.exception("the engine could not take a forward back")
        return error
    return None

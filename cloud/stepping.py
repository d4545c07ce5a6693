"""One step of the engine for the jobs in it: each gets its result, or what went wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from cloud.engine import Engine, Outcome, Work
from cloud.jobs import Job

__all__ = ["run_step"]

_logger = logging.getLogger(__name__)


def run_step(engine: Engine, batch: Sequence[tuple[Job, Work]]) -> None:
    """Run works, memory taken for them, and give each job what came of its own.

    A job whose last piece has run gets its reply; one that failed gets its error, and its session
    is as it was before.
    """
    outcomes = _outcomes(engine, [work for _, work in batch])
    for job, work in batch:
        _settle(engine, job, work, next(outcomes))


def _outcomes(engine: Engine, works: Sequence[Work]) -> Iterator[Outcome]:
    """The engine's outcomes; whatever happens to it, one for each work."""
    left = len(works)
    try:
        for outcome in engine.step(works):
            left -= 1
            yield outcome
        fault: Exception = RuntimeError("the engine left works of a step unanswered")
    except Exception as error:
        _logger.exception("the engine failed in a step")
        fault = error
    for _ in range(left):
        yield fault


def _settle(engine: Engine, job: Job, work: Work, outcome: Outcome) -> None:
    if isinstance(outcome, Exception):
        job.fail(outcome)
        return
    job.add(outcome, len(work.hidden))
    if job.left:
        return
    try:
        job.succeed()
    except Exception as error:  # noqa: BLE001 - handed to the one who sent this forward
        job.fail(_revert(engine, job) or error)


def _revert(engine: Engine, job: Job) -> Exception | None:
    """Take back the session's last forward; the fault that keeps it from being taken back."""
    try:
        engine.revert(job.session)
    except Exception as error:
        _logger.exception("the engine could not take a forward back")
        return error
    return None

"""The loop that both stages of training share: time, learning rate, log, checkpoints."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tqdm import tqdm

from .recipe import Schedule

#: Seconds that a step counts at most.
_LONGEST_STEP: Final = 30.0


@dataclass
class Progress:
    """What a stage has done so far; saved with each checkpoint."""

    step: int = 0
    seconds: float = 0.0
    #: Step and the mean loss since the entry before.
    losses: list[tuple[int, float]] = field(default_factory=list)

    def share(self, schedule: Schedule) -> float:
        """How much of the stage is done, from 0 to 1."""
        return max(self.step / schedule.steps, self.seconds / (60 * schedule.minutes))


def run(
    name: str,
    schedule: Schedule,
    progress: Progress,
    *,
    take_step: Callable[[int, float], float],
    save: Callable[[], None],
    stop: threading.Event,
    log_every: int = 25,
    save_every: int = 100,
) -> bool:
    """Take steps until the stage is done or somebody wants it to stop.

    Args:
        name: What the progress bar says.
        schedule: How long, and the learning rates.
        progress: Where the stage stands; updated in place.
        take_step: Takes the step of that number at that learning rate and returns its loss.
        save: Writes a checkpoint.
        stop: Once set, the present step is finished and saved.
        log_every: Steps between two entries of ``progress.losses``.
        save_every: Steps between two checkpoints.

    Returns:
        Whether the stage is done.
    """
    started = time.perf_counter()
    recent: list[float] = []
    with tqdm(
        total=schedule.steps, initial=progress.step, unit="step", desc=name, file=sys.stderr
    ) as bar:
        while progress.share(schedule) < 1.0 and not stop.is_set():
            rate = schedule.learning_rate_at(progress.step, progress.share(schedule))
            recent.append(take_step(progress.step, rate))
            progress.step += 1
            now = time.perf_counter()
            # Whoever suspends the process does not thereby use its time up.
            progress.seconds += min(now - started, _LONGEST_STEP)
            started = now
            bar.update()
            if progress.step % log_every == 0:
                progress.losses.append((progress.step, round(sum(recent) / len(recent), 5)))
                recent = []
                bar.set_postfix_str(
                    f"loss={progress.losses[-1][1]:.4f}, {_remaining(schedule, progress)}"
                )
            if progress.step % save_every == 0:
                save()
    save()
    return progress.share(schedule) >= 1.0


def _remaining(schedule: Schedule, progress: Progress) -> str:
    """The bar knows only of steps; the clock may end a stage earlier."""
    share = progress.share(schedule)
    minutes = progress.seconds / 60 * (1 - share) / share
    return f"{share:.0%} done, {minutes:.1f} min left"

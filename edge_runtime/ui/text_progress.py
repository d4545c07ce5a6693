"""One text on a session, as what a page shows of it while it grows."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_runtime.generator import TextGenerator
from edge_runtime.sampling import SamplingSettings
from edge_runtime.sessions.served import ServedText
from edge_runtime.sessions.session_thread import Wanted, unless_given_up
from edge_runtime.stats import GenerationStats
from edge_runtime.stream import FinishReason
from lambda_split.split import Split

__all__ = ["TextOrder", "TextProgress", "text_progress"]

# How often the text is shown, and what was sent looked at: tokens may come far faster, and a
# browser that draws each of them takes more of a device than head and tail.
_SHOW_EVERY_S = 0.07
_LOOK_EVERY_S = 0.3


@dataclass(frozen=True)
class TextOrder:
    """What is asked for.

    Attributes:
        prompt_ids: Tokens of the prompt, as :meth:`ServedText.encode` gives them.
        max_new_tokens: The most tokens to sample.
        sampling: How they are drawn.
        stop: Strings that end the text.
        shown_positions: Of how many of the last positions the sent states are looked at.
    """

    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    sampling: SamplingSettings
    stop: tuple[str, ...] = ()
    shown_positions: int = 64


@dataclass(frozen=True, eq=False)
class TextProgress:
    """How far a text is.

    Attributes:
        split: Where the session's model is cut; None where no session is known yet.
        text: All that may be shown.
        stats: What it has cost so far.
        sent: float32 (positions, hidden size), what was sent of the last positions; None where it
            was not looked at again.
        finish_reason: Why it has ended; None while it goes on.
    """

    split: Split | None
    text: str = ""
    stats: GenerationStats = field(default_factory=GenerationStats)
    sent: npt.NDArray[np.float32] | None = None
    finish_reason: FinishReason | None = None


def text_progress(served: ServedText, order: TextOrder) -> AsyncGenerator[TextProgress, None]:
    """Generate on one of a model's sessions; leaving the iteration ends it.

    Args:
        served: The model.
        order: What is asked for.

    Raises:
        Overloaded: there is no session to be had.
        LambdaSplitError: as :meth:`TextGenerator.open`, :meth:`TextGenerator.stream` and its
            iteration.
    """

    def job(generator: TextGenerator, wanted: Wanted) -> Generator[TextProgress | None]:
        generator.wait_while(wanted)  # a trunk that is away, that is
        yield from _steps(generator, order, wanted)

    return served.pool.run(job, order.prompt_ids)


def _steps(
    generator: TextGenerator, order: TextOrder, wanted: Wanted
) -> Generator[TextProgress | None]:
    split = generator.split
    yield TextProgress(split)
    stream = generator.stream(
        order.prompt_ids,
        max_new_tokens=order.max_new_tokens,
        sampling=order.sampling,
        stop=order.stop,
        on_prompt=unless_given_up(wanted),
    )
    said: list[str] = []
    shown = looked = 0.0
    with stream:
        while (piece := stream.advance()) is not None:
            said.append(piece)
            sent, now = None, time.monotonic()
            if now - shown < _SHOW_EVERY_S:
                yield None
                continue
            if now - looked >= _LOOK_EVERY_S:
                sent, looked = generator.sent_states(order.shown_positions), now
            shown = now
            yield TextProgress(split, "".join(said), stream.stats, sent)
        sent = generator.sent_states(order.shown_positions)
        result = stream.result
        yield TextProgress(split, result.text, result.stats, sent, result.finish_reason)

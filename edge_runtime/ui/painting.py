"""One order of pictures, as what the page shows from one moment to the next. No Gradio in here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_runtime.pictures.decoder import Pixels
from edge_runtime.sessions.served import ServedPictures
from edge_runtime.ui.panels import PictureWire
from edge_runtime.ui.picture_progress import PictureProgress, PictureWish, picture_progress
from edge_runtime.ui.stopping import until_stopped, waiting_note
from lambda_split.counting import counted
from lambda_split.errors import LambdaSplitError, UsageError

__all__ = ["Painter", "PictureView"]

_TICK_S = 2.0


@dataclass(frozen=True, eq=False)
class PictureView:
    """What the page shows.

    Attributes:
        running: More is coming.
        note: What a person should know.
        trouble: The note tells of an error.
        pictures: uint8 (images, height, width, 3), as far as they are; None where nothing is new.
        finished: They are the finished ones.
        noise: float32 (C, h, w), the first picture's predicted noise; None where nothing is new.
        wire: What the panel shows; None where nothing is new.
    """

    running: bool
    note: str = ""
    trouble: bool = False
    pictures: Pixels | None = None
    finished: bool = False
    noise: npt.NDArray[np.float32] | None = None
    wire: PictureWire | None = None


class Painter:
    """Makes pictures with a pipeline.

    Args:
        served: The pipeline.
        form: How noise or features cross the wire, to be told.
    """

    def __init__(self, served: ServedPictures, *, form: str) -> None:
        self._served = served
        self.blank = PictureWire(served.manifest.split, form)

    async def paint(
        self, wish: PictureWish, stop: asyncio.Event
    ) -> AsyncGenerator[PictureView, None]:
        """Make what is asked for; the last view is not ``running``.

        Args:
            wish: What is asked for.
            stop: Set when it should end where it is.
        """
        if not wish.prompt.strip():
            yield PictureView(running=False, note="describe a picture first")
            return
        yield PictureView(running=True, note="encoding the prompt here")
        began, waited, begun, done = time.monotonic(), 0.0, False, False
        note = "stopped"
        try:
            self._check(wish)
            coming = until_stopped(picture_progress(self._served, wish), stop, tick_s=_TICK_S)
            async with contextlib.aclosing(coming) as items:
                async for item in items:
                    if item is None:
                        waited += _TICK_S
                        yield PictureView(running=True, note=waiting_note(waited, begun=begun))
                        continue
                    waited, begun, done = 0.0, True, item.result is not None
                    if item.result is not None:
                        note = f"{item.result.stats.total_s:.1f} s, seed {item.result.seed}"
                        note += _unseen(item.unseen_tokens)
                    yield self._view(item, wish, time.monotonic() - began)
        except LambdaSplitError as error:
            yield PictureView(running=False, note=str(error), trouble=True)
            return
        yield PictureView(running=False, note=note, finished=done)

    def _check(self, wish: PictureWish) -> None:
        height, width = wish.spec.size(self._served.manifest)
        if wish.spec.images * height * width > self._served.max_pixels:
            raise UsageError(
                f"at most {self._served.max_pixels:,} pixels can be made at once, of all pictures"
            )

    def _view(self, progress: PictureProgress, wish: PictureWish, seconds: float) -> PictureView:
        noise = None if progress.noise is None else progress.noise[0]
        return PictureView(
            running=True,
            note=_progress(progress, seconds),
            pictures=progress.preview,
            finished=progress.result is not None,
            noise=noise,
            wire=replace(
                self.blank,
                prompt=wish.prompt,
                negative=wish.negative_prompt,
                stats=progress.stats,
                sent=progress.sent[0],
            ),
        )


def _unseen(tokens: int) -> str:
    """That text encoders take so many tokens and no more."""
    return f"; the prompt's last {counted(tokens, 'token')} cannot be seen" if tokens else ""


def _progress(progress: PictureProgress, seconds: float) -> str:
    if not progress.number:
        return f"{counted(progress.steps, 'step')} to go"
    left = (progress.steps - progress.number) * seconds / progress.number
    told = f"step {progress.number} of {progress.steps}"
    told += _unseen(progress.unseen_tokens)
    return f"{told}, about {left:.0f} s left" if progress.number < progress.steps else told

"""Pictures on a session, as what a page shows of them while they are made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_runtime.pictures.decoder import Pixels
from edge_runtime.pictures.generator import ImageGenerator
from edge_runtime.pictures.request import PictureSpec
from edge_runtime.pictures.stream import ImageResult, ImageStats
from edge_runtime.sessions.served import ServedPictures
from edge_runtime.sessions.session_thread import Wanted

__all__ = ["PictureProgress", "PictureWish", "picture_progress"]


@dataclass(frozen=True)
class PictureWish:
    """What is asked for.

    Attributes:
        prompt: What to show.
        negative_prompt: What to lead away from.
        spec: How pictures are made.
        preview_every: Steps between previews; 0 for none.
    """

    prompt: str
    negative_prompt: str
    spec: PictureSpec
    preview_every: int


@dataclass(frozen=True, eq=False)
class PictureProgress:
    """How far pictures are.

    Attributes:
        number: Steps taken.
        steps: Steps to take.
        stats: What it has cost so far.
        sent: What the trunk was told of the prompt, float32 (rows, tokens, width) the first.
        noise: float32 (images, C, h, w), what the last step predicted; None before the first.
        preview: uint8 (images, height, width, 3), the pictures as far as the last step can tell;
            None where there is nothing new to see.
        result: The finished pictures, at the end.
        unseen_tokens: Of the prompt, behind what the text encoders take.
    """

    number: int
    steps: int
    stats: ImageStats
    sent: Sequence[npt.NDArray[np.float32]]
    noise: npt.NDArray[np.float32] | None = None
    preview: Pixels | None = None
    result: ImageResult | None = None
    unseen_tokens: int = 0


def picture_progress(
    served: ServedPictures, wish: PictureWish
) -> AsyncGenerator[PictureProgress, None]:
    """Make pictures on one of a model's sessions; leaving the iteration ends it.

    Raises:
        Overloaded: there is no session to be had.
        LambdaSplitError: as :meth:`ImageGenerator.open`, :meth:`ImageGenerator.stream` and its
            iteration.
    """

    def job(painter: ImageGenerator, wanted: Wanted) -> Generator[PictureProgress | None]:
        painter.wait_while(wanted)  # a trunk that is away, that is
        stream = painter.stream(
            wish.prompt,
            negative_prompt=wish.negative_prompt,
            spec=wish.spec,
            preview_every=wish.preview_every,
        )
        start = PictureProgress(
            0,
            wish.spec.steps,
            stream.stats,
            stream.conditioning,
            unseen_tokens=painter.unseen_tokens(wish.prompt),
        )
        yield start
        last = None
        with stream:
            for last in stream:
                yield replace(
                    start,
                    number=last.number,
                    stats=stream.stats,
                    noise=last.noise,
                    preview=last.preview,
                )
        if last is not None:
            result = stream.result
            yield replace(
                start,
                number=last.number,
                stats=result.stats,
                noise=last.noise,
                preview=result.images,
                result=result,
            )

    return served.pool.run(job)

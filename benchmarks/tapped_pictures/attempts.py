"""All attempts on all pictures, and how near each comes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from benchmarks.picture_formats.denoising import Receiver, synchronized
from benchmarks.picture_formats.measuring import Plan, ask
from benchmarks.picture_formats.painter import Painter
from benchmarks.picture_formats.scores import Scores, compare
from benchmarks.tapped_pictures.deep import LinearMap, channel_mean, cross, first_channels
from benchmarks.tapped_pictures.searching import search
from benchmarks.tapped_pictures.whole import record, watch
from lambda_split.wire.tensor_format import Base, TensorFormat

__all__ = ["Attempt", "attempt_all"]

Pictures = npt.NDArray[np.float32]
FORM = TensorFormat(Base.FP16)


@dataclass(frozen=True, eq=False)
class Attempt:
    """One way to see the pictures.

    Attributes:
        split: What is tapped; empty for what needs no wire.
        name: What is done with it.
        step: How many steps had been made.
        pictures: What is seen, float32 (n, height, width, 3).
        scores: The mean, against the true pictures.
    """

    split: str
    name: str
    step: int
    pictures: Pictures = field(repr=False)
    scores: Scores


def attempt_all(
    painter: Painter, attacked: Plan, others: Plan, steps: Sequence[int]
) -> tuple[Pictures, list[Attempt]]:
    """Make pictures, and try to see them.

    Args:
        painter: The model.
        attacked: The pictures that somebody wants to see.
        others: Pictures that he makes himself, to fit the linear map on.
        steps: After how many steps he tries.

    Returns:
        The true pictures, and each attempt.
    """
    asked = ask(painter, attacked, FORM, synchronized=True)
    receivers = synchronized(painter.denoiser, asked, FORM)
    own = ask(painter, others, FORM, synchronized=True)
    own_receivers = synchronized(painter.denoiser, own, FORM)
    true, likely = painter.decode(_finished(receivers)), _finished(own_receivers)
    found: list[Attempt] = []

    def note(split: str, name: str, step: int, pictures: Pictures) -> None:
        scores = Scores.mean(compare(pictures, true))
        found.append(Attempt(split, name, step, pictures, scores))
        print(f"{split} {name}, {step} steps: {scores.psnr:.2f} dB", file=sys.stderr)

    average = painter.decode(likely).mean(axis=0, keepdims=True)
    note("", "the mean of other pictures", 0, np.repeat(average, len(true), axis=0))
    note("", "a picture of another prompt", 0, np.roll(true, len(attacked.seeds), axis=0))
    for count in steps:
        step = count - 1
        recordings = [
            record(one, receiver, FORM) for one, receiver in zip(asked, receivers, strict=True)
        ]
        watched = np.concatenate([watch(one, count) for one in recordings])
        note("whole", "the public decoder", count, painter.decode(watched))
        features = cross(painter.denoiser, asked, [r.states[step] for r in receivers], step, FORM)
        prompts = features[:, 0]  # with the prompt: (n, channels, h, w)
        guessed = first_channels(prompts, likely)
        note("deep", "the first channels for latents", count, painter.decode(guessed))
        size = (true.shape[1], true.shape[2])
        note("deep", "the mean of the channels", count, channel_mean(prompts, size))
        known = cross(painter.denoiser, own, [r.states[step] for r in own_receivers], step, FORM)
        linear = LinearMap.fitted(known[:, 0], likely)
        note("deep", "a linear map", count, painter.decode(linear(prompts)))
        searched, off = search(painter.denoiser, asked, features, step)
        print(f"the features found are off by {off:.2%}", file=sys.stderr)
        note("deep", "a search with the public model", count, painter.decode(searched))
    return true, found


def _finished(receivers: Sequence[Receiver]) -> npt.NDArray[np.float32]:
    """The latents at the end, float32 (n, C, h, w)."""
    return np.concatenate([one.state.sample for one in receivers])

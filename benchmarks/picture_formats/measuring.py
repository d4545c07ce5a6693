"""From prompts and seeds to scores and bytes of every format."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from benchmarks.picture_formats.chosen_formats import EXACT
from benchmarks.picture_formats.denoising import Asked, Receiver, synchronized, unsynchronized
from benchmarks.picture_formats.painter import Painter
from benchmarks.picture_formats.scores import Scores, compare
from lambda_split.wire.frames import HEADER_BYTES
from lambda_split.wire.pictures.settings import Denoising
from lambda_split.wire.pictures.trajectory import Trajectory
from lambda_split.wire.tensor_format import Base, TensorFormat

__all__ = ["Figures", "Plan", "ask", "measure"]

Pictures = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Plan:
    """What is made.

    Attributes:
        prompts: What to show.
        seeds: Of each prompt's pictures.
        steps: Runs of the denoiser.
        guidance: Scale of classifier-free guidance.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int = 25
    guidance: float = 5.0


@dataclass(frozen=True, eq=False)
class Figures:
    """What a format comes to.

    Attributes:
        form: The format.
        step_bytes: Of a step's payload.
        picture_bytes: Of all messages that bring a picture's noise, headers included.
        synchronized: The mean, with a trunk that steps with the quantized noise.
        unsynchronized: The mean, with one that steps with its own.
        pictures: Of the synchronized trunk, float32 (n, height, width, 3): a prompt's seeds side by
            side.
    """

    form: TensorFormat
    step_bytes: int
    picture_bytes: int
    synchronized: Scores
    unsynchronized: Scores
    pictures: Pictures = field(repr=False)


def ask(painter: Painter, plan: Plan, form: TensorFormat, *, synchronized: bool) -> list[Asked]:
    """The pictures of a plan: each prompt with each seed, as a device asks for one picture."""
    # As the device sends them: exactly only where the noise comes back exactly.
    told = painter.conditioning(plan.prompts, EXACT if form == EXACT else TensorFormat(Base.FP16))
    asked = []
    for conditioning in told:
        for seed in plan.seeds:
            denoising = Denoising(
                scheduler=painter.scheduler,
                steps=plan.steps,
                seed=seed,
                synchronized=synchronized,
            )
            trajectory = Trajectory.of(denoising, 1, painter.shape)
            asked.append(Asked(trajectory, conditioning, plan.guidance))
    return asked


def measure(
    painter: Painter, plan: Plan, forms: Sequence[TensorFormat]
) -> tuple[Pictures, list[Figures]]:
    """Make all pictures in all formats.

    Returns:
        The pictures of fp32, (n, height, width, 3), and each format's figures.
    """
    began = time.perf_counter()
    denoiser = painter.denoiser
    wanted = _pictures(
        painter, synchronized(denoiser, ask(painter, plan, EXACT, synchronized=True), EXACT)
    )
    asked = ask(painter, plan, TensorFormat(Base.FP16), synchronized=False)
    apart = unsynchronized(denoiser, asked, forms)
    figures = []
    for number, form in enumerate(forms, start=1):
        together = synchronized(denoiser, ask(painter, plan, form, synchronized=True), form)
        pictures = _pictures(painter, together)
        payloads = together[0].payloads
        figures.append(
            Figures(
                form=form,
                step_bytes=len(payloads[0]),
                picture_bytes=sum(HEADER_BYTES + len(payload) for payload in payloads),
                synchronized=Scores.mean(compare(pictures, wanted)),
                unsynchronized=Scores.mean(compare(_pictures(painter, apart[form]), wanted)),
                pictures=pictures,
            )
        )
        print(
            f"{number}/{len(forms)} {form.label}: {figures[-1].synchronized.psnr:.2f} dB, "
            f"{time.perf_counter() - began:.0f} s",
            file=sys.stderr,
        )
    return wanted, figures


def _pictures(painter: Painter, receivers: Sequence[Receiver]) -> Pictures:
    return painter.decode(np.concatenate([one.state.sample for one in receivers]))

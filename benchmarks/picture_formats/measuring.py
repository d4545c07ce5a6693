"""From prompts and seeds to scores and bytes of every format."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from audit.pictures.asking import EXACT, Plan, ask
from audit.pictures.denoising import Receiver, synchronized, unsynchronized
from audit.pictures.model import PublicModel
from benchmarks.picture_formats.scores import Scores, compare
from lambda_split.wire.frames import HEADER_BYTES
from lambda_split.wire.tensor_format import Base, TensorFormat

__all__ = ["Figures", "measure"]

Pictures = npt.NDArray[np.float32]


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


def measure(
    painter: PublicModel, plan: Plan, forms: Sequence[TensorFormat]
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


def _pictures(painter: PublicModel, receivers: Sequence[Receiver]) -> Pictures:
    return painter.decode(np.concatenate([one.state.sample for one in receivers]))

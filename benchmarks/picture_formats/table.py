"""The figures as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.picture_formats.measuring import Figures
from benchmarks.picture_formats.scores import Scores
from lambda_split.wire.tensor_format import Base, TensorFormat, payload_bytes

__all__ = ["best_of_four_bits", "table"]

_LARGE = (1, 4, 128, 128)  # latents of 1024 × 1024 pixels
_HEADINGS = (
    "format",
    "bytes a step",
    "bytes a picture",
    "a step at 1024 × 1024",
    "PSNR, dB",
    "SSIM",
    "VIF",
    "PSNR, dB, not synchronized",
    "SSIM",
    "VIF",
)


def table(figures: Sequence[Figures]) -> Iterator[str]:
    """The lines of the table."""
    yield f"| {' | '.join(_HEADINGS)} |"
    yield "|---" * len(_HEADINGS) + "|"
    for one in figures:
        large = payload_bytes(one.form, _LARGE)
        cells = (
            f"{one.form.label} | {one.step_bytes:,} | {one.picture_bytes:,} | {large:,}",
            _scores(one.synchronized),
            _scores(one.unsynchronized),
        )
        yield f"| {' | '.join(cells)} |"


def best_of_four_bits(figures: Sequence[Figures]) -> str:
    """The paper's question: can four bits of a better quantizer be as good as five evenly spread?

    Returns:
        A sentence; empty where the figures lack one of both.
    """
    four = [one for one in figures if one.form.base.normal and one.form.base.bits == 4]
    evenly = [one for one in figures if one.form == TensorFormat(Base.INT5)]
    if not four or not evenly:
        return ""
    best = max(four, key=lambda one: one.synchronized.psnr)
    found, asked = best.synchronized.psnr, evenly[0].synchronized.psnr
    return (
        f"Best of four bits: {best.form.label}, {found:.2f} dB with {best.step_bytes:,} bytes a "
        f"step; int5 has {asked:.2f} dB with {evenly[0].step_bytes:,}: {found - asked:+.2f} dB."
    )


def _scores(scores: Scores) -> str:
    return f"{scores.psnr:.2f} | {scores.ssim:.4f} | {scores.vif:.4f}"

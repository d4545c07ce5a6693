"""Which formats are compared, and how they are called in the table and the plots."""

from __future__ import annotations

from lambda_split.wire.tensor_format import Base, TensorFormat

__all__ = ["FORMATS", "bits_of", "family_of"]

_BITS = range(8, 0, -1)


def _grouped(first: Base, *, per_channel: bool = False, delta: bool = False) -> list[TensorFormat]:
    return [TensorFormat(Base(first + bits - 1), per_channel, delta) for bits in _BITS]


FORMATS: tuple[TensorFormat, ...] = (
    TensorFormat(Base.FP16),
    TensorFormat(Base.FP8_E4M3),
    TensorFormat(Base.FP8_E5M2),
    *_grouped(Base.INT1),  # as in the Λ-Split paper
    *_grouped(Base.NF1),
    *_grouped(Base.NF1, per_channel=True),
    *_grouped(Base.NF1, delta=True),
    *_grouped(Base.NF1, per_channel=True, delta=True),
)
"""All that are compared with fp32, in the table's order."""


def bits_of(form: TensorFormat) -> int:
    """Bits of one value, without its group's parameters."""
    return form.base.bits


def family_of(form: TensorFormat) -> str:
    """The format without its number of bits, such as ``nf-channel-delta``."""
    if not form.base.grouped:
        return form.label
    return form.label.replace(str(form.base.bits), "", 1)

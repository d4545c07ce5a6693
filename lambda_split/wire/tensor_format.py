"""How a picture's tensor is laid out on the wire: names, codes and exact sizes.

A format is a base (how one value is coded) and at most two properties::

    nf4-channel-delta
    │   │       └──── the difference to a tensor that both sides have
    │   └──────────── parameters for each image and channel, not for each image
    └──────────────── 4 bits a value, levels spaced for a Gaussian

``lambda_split.wire.tensor_codecs`` codes; nothing here touches a value. ``docs/protocol-images.md``
is normative.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lambda_split.wire.bit_packing import packed_bytes

__all__ = ["GROUP_BYTES", "TENSOR_FORMATS", "Base", "TensorFormat", "payload_bytes"]

GROUP_BYTES = 8
"""Bytes of one group's parameters: two float32."""

_CHANNEL = 0x40
_DELTA = 0x80


class Base(enum.IntEnum):
    """How one value is coded; 1 to 3 are those of :class:`lambda_split.wire.frames.Codec`."""

    FP32 = 1
    FP16 = 2
    BF16 = 3
    FP8_E4M3 = 4
    FP8_E5M2 = 5
    INT1 = 8
    INT2 = 9
    INT3 = 10
    INT4 = 11
    INT5 = 12
    INT6 = 13
    INT7 = 14
    INT8 = 15
    NF1 = 16
    NF2 = 17
    NF3 = 18
    NF4 = 19
    NF5 = 20
    NF6 = 21
    NF7 = 22
    NF8 = 23

    @property
    def label(self) -> str:
        """The name on the wire and on the command line, such as ``fp8-e4m3``."""
        return self.name.lower().replace("_", "-")

    @property
    def bits(self) -> int:
        """Bits of one value."""
        if self.grouped:
            return (self - Base.INT1) % 8 + 1
        return {Base.FP32: 32, Base.FP16: 16, Base.BF16: 16}.get(self, 8)

    @property
    def grouped(self) -> bool:
        """Whether values are codes for the levels of their group, packed to the bit."""
        return self >= Base.INT1

    @property
    def normal(self) -> bool:
        """Whether a group's levels are spaced for a Gaussian; otherwise evenly."""
        return self >= Base.NF1


@dataclass(frozen=True, slots=True)
class TensorFormat:
    """The layout of one tensor's payload.

    Attributes:
        base: How one value is coded.
        per_channel: A group of parameters for each image and channel, instead of each image
            (grouped bases only: the others have no parameters).
        delta: What is coded is the difference to a reference, the tensor that the receiver decoded
            before (not fp32, which would lose its exactness and win nothing).

    Raises:
        ValueError: a property that the base cannot have; labels and codes from outside never
            get that far, see :meth:`from_label` and :meth:`from_code`.
    """

    base: Base
    per_channel: bool = False
    delta: bool = False

    def __post_init__(self) -> None:
        if (self.per_channel and not self.base.grouped) or (self.delta and self.base is Base.FP32):
            raise ValueError(f"there is no such format: {self.label}")

    @property
    def label(self) -> str:
        """The name in control messages and on the command line, such as ``nf4-channel-delta``."""
        channel, delta = "-channel" * self.per_channel, "-delta" * self.delta
        return f"{self.base.label}{channel}{delta}"

    @property
    def code(self) -> int:
        """The header's codec byte: base, plus 64 per channel, plus 128 for a difference."""
        return self.base | _CHANNEL * self.per_channel | _DELTA * self.delta

    @classmethod
    def from_label(cls, label: str) -> TensorFormat | None:
        """The format of that name, or None where this version knows none."""
        return _BY_LABEL.get(label)

    @classmethod
    def from_code(cls, code: int) -> TensorFormat | None:
        """The format of that codec byte, or None where this version knows none."""
        return _BY_CODE.get(code)


TENSOR_FORMATS = tuple(
    TensorFormat(base, per_channel, delta)
    for base in Base
    for per_channel in (False, True)[: 1 + base.grouped]
    for delta in (False, True)[: 1 + (base is not Base.FP32)]
)
"""All formats, by base."""

_BY_LABEL = {form.label: form for form in TENSOR_FORMATS}
_BY_CODE = {form.code: form for form in TENSOR_FORMATS}


def payload_bytes(form: TensorFormat, shape: Sequence[int]) -> int:
    """Exact payload length of a tensor; also what bounds it before anything is allocated.

    Args:
        form: The layout.
        shape: (images, channels, ...); a tensor without values has no bytes.

    Returns:
        For a grouped base the groups' parameters and the packed codes, else the values.
    """
    images, channels, *_ = shape
    count = math.prod(shape)
    if not form.base.grouped:
        return count * form.base.bits // 8
    groups = images * channels if form.per_channel else images
    return (groups * GROUP_BYTES if count else 0) + packed_bytes(count, form.base.bits)

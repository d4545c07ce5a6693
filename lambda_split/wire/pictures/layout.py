"""How large what crosses is: conditioning, state, and the inner part's input and output.

Shapes are *logical*: (images or rows, channels or positions, …), row-major, one after another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lambda_split.errors import MessageMalformed
from lambda_split.wire.pictures.settings import PictureSettings
from lambda_split.wire.tensor_format import Base, TensorFormat

__all__ = [
    "CONDITIONING_FORMATS",
    "FLOAT_BYTES",
    "DeepGeometry",
    "DenoiserGeometry",
    "conditioning_shapes",
    "inner_shapes",
    "state_shape",
]

FLOAT_BYTES = 4
CONDITIONING_FORMATS = tuple(map(TensorFormat, (Base.FP32, Base.FP16, Base.BF16)))


@dataclass(frozen=True)
class DeepGeometry:
    """The tensors at the cuts of a denoiser whose first and last blocks are elsewhere.

    Attributes:
        input_channels: Channels that go in.
        output_channels: Channels that come out.
        reduction: How many times smaller than the latents both are, each way.
    """

    input_channels: int
    output_channels: int
    reduction: int


@dataclass(frozen=True)
class DenoiserGeometry:
    """The measures of a denoiser that both sides must agree on.

    Attributes:
        channels: Of the latents.
        context_width: Width of the text encoders' output.
        pooled_width: Width of the pooled output; 0 where the denoiser takes none.
        time_ids: Numbers that tell it of sizes and crops; 0 where it takes none.
        guidance_embedding: Whether it takes the guidance scale as an input.
        deep: The cuts of its deep split, where it has one.
    """

    channels: int
    context_width: int
    pooled_width: int = 0
    time_ids: int = 0
    guidance_embedding: bool = False
    deep: DeepGeometry | None = None

    def check(self, settings: PictureSettings, *, deep: bool) -> None:
        """See whether a picture's settings fit the denoiser and the split.

        Raises:
            MessageMalformed: they do not.
        """
        if (settings.denoising is None) is not deep or bool(settings.timesteps) is not deep:
            raise MessageMalformed("a picture's settings are those of the other split")
        if len(settings.time_ids) != self.time_ids:
            raise MessageMalformed(f"{len(settings.time_ids)} time ids, not {self.time_ids}")
        if (settings.guidance_embedding is not None) is not self.guidance_embedding:
            raise MessageMalformed("the guidance embedding is for denoisers that take one")
        if settings.prompts not in {1, settings.images}:
            raise MessageMalformed(f"{settings.prompts} prompts for {settings.images} images")


def conditioning_shapes(
    settings: PictureSettings, geometry: DenoiserGeometry
) -> list[tuple[int, ...]]:
    """Shapes of a picture's conditioning: context, then pooled output where there is one.

    The prompts' rows come first, then those of the negative prompts where these are sent.
    """
    rows = settings.prompts * (2 if settings.negative == "sent" else 1)
    shapes: list[tuple[int, ...]] = [(rows, settings.context_tokens, geometry.context_width)]
    if geometry.pooled_width:
        shapes.append((rows, geometry.pooled_width))
    return shapes


def state_shape(settings: PictureSettings, geometry: DenoiserGeometry) -> tuple[int, int, int, int]:
    """(images, channels, height, width) of the latents, and of each other tensor of a state."""
    return settings.images, geometry.channels, settings.height, settings.width


def inner_shapes(
    settings: PictureSettings, deep: DeepGeometry
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """Shapes at the two cuts: (images × branches, channels, height, width) in, and out."""
    rows = settings.images * settings.branches
    height = math.ceil(settings.height / deep.reduction)
    width = math.ceil(settings.width / deep.reduction)
    return (
        (rows, deep.input_channels, height, width),
        (rows, deep.output_channels, height, width),
    )

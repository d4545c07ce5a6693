"""What a picture is to the trunk: everything that its steps need but the tensors."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lambda_split.diffusion.scheduler_config import SchedulerConfig
from lambda_split.errors import MessageMalformed
from lambda_split.wire.messages import MAX_MESSAGE_BYTES

__all__ = [
    "MAX_IMAGES",
    "MAX_ROW_TOKENS",
    "MAX_STEPS",
    "Denoising",
    "PictureSettings",
    "parse_settings",
    "serialize_settings",
]

_Side = Annotated[int, Meta(ge=1, le=4096)]
_Scale = Annotated[float, Meta(ge=0, le=1000)]
_TimeId = Annotated[float, Meta(ge=-100_000, le=100_000)]
_Timestep = Annotated[float, Meta(ge=0, le=100_000)]
MAX_IMAGES = 64
MAX_STEPS = 1000
# Of all runs of the denoiser in a step: images × branches × tokens.
MAX_ROW_TOKENS = 16384


class Denoising(msgspec.Struct, frozen=True, kw_only=True):
    """How a trunk that is the whole denoiser goes from step to step by itself.

    Attributes:
        scheduler: The solver and its noise schedule.
        steps: How many steps the picture takes.
        seed: Of the noise that solvers add, and of the latents that a picture starts from.
        first_image: Index of the first image of the batch; noise is drawn for each index anew.
        synchronized: The trunk steps with what the device decodes; otherwise with its own exact
            noise, and the two drift apart.
    """

    scheduler: SchedulerConfig
    steps: Annotated[int, Meta(ge=1, le=MAX_STEPS)]
    seed: Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
    first_image: Annotated[int, Meta(ge=0, le=(1 << 24))] = 0
    synchronized: bool = True


class PictureSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings in front of a picture's conditioning.

    Attributes:
        images: Images that are made at once.
        prompts: Different prompts among them: 1 for all, or one each.
        height: Of the latents.
        width: Of the latents.
        context_tokens: Positions of the text encoders' output.
        negative: What guidance leads away from: ``none`` where there is no guidance, ``zeros``
            where its conditioning is all zeros and need not be sent, ``sent`` where it follows the
            prompts' own.
        guidance: Scale of classifier-free guidance; not looked at where ``negative`` is ``none``.
        rescale: Guidance rescale, φ of arXiv 2305.08891; 0 leaves the noise as it is.
        guidance_embedding: For denoisers that were distilled with guidance: its scale; else None.
        time_ids: Original size, crop and target size, for denoisers that are told of them.
        denoising: Where the trunk is the whole denoiser.
        timesteps: Where it is the denoiser's inner part: what each step is told; guidance is then
            the device's business.
    """

    images: Annotated[int, Meta(ge=1, le=MAX_IMAGES)]
    height: _Side
    width: _Side
    context_tokens: _Side
    prompts: Annotated[int, Meta(ge=1, le=MAX_IMAGES)] = 1
    negative: Literal["none", "zeros", "sent"] = "none"
    guidance: _Scale = 1.0
    rescale: Annotated[float, Meta(ge=0, le=1)] = 0.0
    guidance_embedding: _Scale | None = None
    time_ids: Annotated[tuple[_TimeId, ...], Meta(max_length=16)] = ()
    denoising: Denoising | None = None
    timesteps: Annotated[tuple[_Timestep, ...], Meta(max_length=MAX_STEPS)] = ()

    @property
    def steps(self) -> int:
        """How many steps the picture takes."""
        return len(self.timesteps) if self.denoising is None else self.denoising.steps

    @property
    def branches(self) -> int:
        """Runs of the denoiser for each image and step: 2 with guidance."""
        return 1 if self.negative == "none" else 2


_DECODER: msgspec.json.Decoder[PictureSettings] = msgspec.json.Decoder(PictureSettings)


def serialize_settings(settings: PictureSettings) -> bytes:
    """The JSON in front of a picture's conditioning."""
    return msgspec.json.encode(settings)


def parse_settings(data: bytes | memoryview) -> PictureSettings:
    """Read them.

    Raises:
        MessageMalformed: too long, not JSON, or a field missing or out of bounds.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageMalformed(f"{len(data)} bytes of settings, the limit is {MAX_MESSAGE_BYTES}")
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MessageMalformed(str(error)[:200]) from error

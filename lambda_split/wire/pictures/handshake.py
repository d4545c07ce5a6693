"""The handshake's rules for pictures; pure functions, as those for text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lambda_split.errors import (
    CodecRefused,
    DenoiserSplitRefused,
    PictureRefused,
)
from lambda_split.wire.handshake import check_identity
from lambda_split.wire.messages import PictureHello
from lambda_split.wire.pictures.layout import DenoiserGeometry
from lambda_split.wire.pictures.settings import MAX_STEPS
from lambda_split.wire.tensor_format import TensorFormat

__all__ = ["AcceptedPictures", "PictureOffer", "accept_picture_hello", "serves"]


@dataclass(frozen=True)
class PictureOffer:
    """What a server of a denoiser serves.

    Attributes:
        fingerprint: Identity of its pipeline.
        geometry: The denoiser's measures.
        max_latents: The most latent positions of a picture: images × height × width.
        max_context: The most positions of a picture's conditioning.
        witnesses: Digests of its tensors by name.
    """

    fingerprint: str
    geometry: DenoiserGeometry
    max_latents: int
    max_context: int = 8192
    witnesses: Mapping[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that its denoiser can do."""
        return ("whole",) if self.geometry.deep is None else ("whole", "deep")


@dataclass(frozen=True)
class AcceptedPictures:
    """What was agreed.

    Attributes:
        split: Where the denoiser is cut.
        format: Of what the trunk sends, and of an inner part's input.
        max_latents: The most latent positions of a picture of this session.
        max_context: The most positions of its conditioning.
        max_steps: The most steps of one.
        resumed_step: Where an earlier connection was lost; 0 for a new session.
    """

    split: Literal["whole", "deep"]
    format: TensorFormat
    max_latents: int
    max_context: int
    max_steps: int
    resumed_step: int = 0


def serves(form: TensorFormat, split: str) -> bool:
    """Whether a format is used with a split.

    Differences are of what both sides follow step by step: in the deep split they would have to
    keep and to replay what went up as well.
    """
    return split == "whole" or not form.delta


def accept_picture_hello(hello: PictureHello, offer: PictureOffer) -> AcceptedPictures:
    """Decide whether the offer serves the hello.

    Raises:
        VersionRefused: another protocol version.
        FingerprintRefused: another pipeline.
        DenoiserSplitRefused: a split that the denoiser cannot do.
        CodecRefused: no tensor format in common.
        PictureRefused: larger pictures, or more steps, than the server makes, or none.
    """
    check_identity(hello, fingerprint=offer.fingerprint, witnesses=offer.witnesses)
    if hello.split not in offer.splits:
        raise DenoiserSplitRefused(hello.split, ", ".join(offer.splits))
    wanted = (TensorFormat.from_label(label) for label in hello.formats)
    chosen = next((each for each in wanted if each and serves(each, hello.split)), None)
    if chosen is None:
        raise CodecRefused(", ".join(hello.formats) or "none", "those of docs/protocol-images.md")
    if not 1 <= hello.latents <= offer.max_latents:
        raise PictureRefused("latent positions", hello.latents, offer.max_latents)
    if not 1 <= hello.context <= offer.max_context:
        raise PictureRefused("positions of conditioning", hello.context, offer.max_context)
    if not 1 <= hello.steps <= MAX_STEPS:
        raise PictureRefused("steps", hello.steps, MAX_STEPS)
    return AcceptedPictures(
        split=hello.split,
        format=chosen,
        max_latents=hello.latents,
        max_context=hello.context,
        max_steps=hello.steps,
        resumed_step=min(hello.resumed_step, hello.steps),
    )

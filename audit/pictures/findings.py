"""What an audit of pictures holds: plain values, one a picture, so that intervals can be drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from audit.pictures.prompts import PromptAttack
from audit.pictures.scores import Likeness

__all__ = ["PictureAttack", "PictureSetting", "PicturesAudit", "Samples", "Sizes"]

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sizes:
    """All that a tapper of a link with TLS learns: when messages pass, and how long they are.

    TLS adds a few bytes to each, the same for all.

    Attributes:
        up: Bytes of each message of one picture to the service, in order; the handshake aside.
        down: Of each message to the device.
    """

    up: tuple[int, ...]
    down: tuple[int, ...]


@dataclass(frozen=True)
class PictureSetting:
    """A split and a format, and what they cost.

    Attributes:
        split: ``whole`` or ``deep``.
        form: Of what the steps carry.
        sizes: Of one picture's messages.
        cost: How near the pictures are to those of the split ``whole`` in fp32.
    """

    split: str
    form: str
    sizes: Sizes
    cost: Likeness

    @property
    def bytes_up(self) -> int:
        """Bytes of a picture to the service."""
        return sum(self.sizes.up)

    @property
    def bytes_down(self) -> int:
        """Bytes of a picture to the device."""
        return sum(self.sizes.down)


@dataclass(frozen=True, eq=False)
class PictureAttack:
    """One way to see the pictures, for a service or for a tapper without TLS.

    Attributes:
        split: What is tapped; empty for what needs no wire, which says what a figure is worth.
        form: In which format; empty as well then.
        name: What is done, such as ``the public decoder``.
        step: How many steps had been made; 0 for what needs none.
        pairs: Pictures of his own that he learned from; 0 for none.
        likeness: To what the device shows.
        seconds: For all pictures, with learning, without making his own pictures.
        pictures: What is seen of the first ones, uint8 (samples, height, width, 3).
    """

    split: str
    form: str
    name: str
    step: int
    pairs: int
    likeness: Likeness
    seconds: float
    pictures: Pixels = field(repr=False)


@dataclass(frozen=True, eq=False)
class Samples:
    """The first pictures side by side, uint8 (samples, height, width, 3) each.

    Attributes:
        shown: What the device shows.
        tapped: What the messages of the split ``whole`` show.
        deep_linear: What a linear map sees in those of the split ``deep``; None without that split.
        deep_search: What a search sees in them.
    """

    shown: Pixels
    tapped: Pixels
    deep_linear: Pixels | None
    deep_search: Pixels | None


@dataclass(frozen=True, eq=False)
class PicturesAudit:
    """All that was found.

    Attributes:
        model: The pipeline's id.
        captions: Of the pictures that were attacked.
        steps: Of a picture.
        prompts: What was found of the prompts, from their encoding, which crosses in all settings.
        control: The same for the first ones, from noise of the encodings' mean and spread: what is
            found of nothing.
        settings: The splits and formats.
        attacks: On the pictures.
        samples: In the first format of each split, after the last step.
        seconds: For everything.
    """

    model: str
    captions: tuple[str, ...]
    steps: int
    prompts: PromptAttack
    control: PromptAttack
    settings: tuple[PictureSetting, ...]
    attacks: tuple[PictureAttack, ...]
    samples: Samples
    seconds: float

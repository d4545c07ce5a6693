"""What an audit of pictures found: the part ``pictures`` of ``results.json``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from audit.pictures.findings import PictureAttack, PicturesAudit, PictureSetting
from audit.pictures.prompts import PromptAttack, PromptFound
from audit.pictures.scores import Likeness
from audit.results import SCHEMA
from audit.scores import Estimate, Score, estimate, mean_estimate
from edge_runtime.pictures.png import encode_png
from lambda_split import __version__

__all__ = [
    "LikenessRecord",
    "PictureCost",
    "PictureFinding",
    "PictureResults",
    "PictureSamples",
    "PromptFinding",
    "likeness_record",
    "picture_results",
    "shrunk",
]

Pixels = npt.NDArray[np.uint8]
_LARGEST_SAMPLE = 256  # pixels a side: a report shows pictures, it does not deliver them


class LikenessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How near each of some pictures is to another one.

    Attributes:
        psnr: In dB, one a picture; None where no pixel differs, which is infinite, and JSON has no
            such number.
        ssim: One a picture; 1 where nothing differs.
        mean_psnr: Over the pictures that differ, with a bootstrap interval over them; None where
            none does.
        mean_ssim: Over all pictures, with a bootstrap interval over them.
    """

    psnr: tuple[float | None, ...]
    ssim: tuple[float, ...]
    mean_psnr: Estimate | None
    mean_ssim: Estimate

    @property
    def same(self) -> int:
        """Pictures of which no pixel differs."""
        return sum(one is None for one in self.psnr)

    @property
    def all_same(self) -> bool:
        """Whether no pixel of any differs."""
        return self.mean_psnr is None


class PromptFinding(msgspec.Struct, frozen=True, kw_only=True):
    """What a search through the public text encoders found of all prompts.

    Attributes:
        prompts: Of each.
        candidates: Tokens that were tried at each position.
        recovered: Share of tokens that are exactly right, with a bootstrap interval over prompts.
        seconds: For all of them together.
    """

    prompts: tuple[PromptFound, ...]
    candidates: int
    recovered: Estimate
    seconds: float


class PictureFinding(msgspec.Struct, frozen=True, kw_only=True):
    """What one attack shows of the pictures.

    Attributes:
        split: What is tapped; empty for what needs no wire: what is seen without looking.
        form: In which format; empty as well then.
        attack: Its name.
        step: How many steps had been made; 0 for what needs none.
        own_pictures: How many of his own whoever attacks learned from; 0 for none.
        likeness: Of what is seen to what the device shows.
        seconds: For all pictures, with learning, without making his own pictures.
    """

    split: str
    form: str
    attack: str
    step: int
    own_pictures: int
    likeness: LikenessRecord
    seconds: float


class PictureCost(msgspec.Struct, frozen=True, kw_only=True):
    """A split and a format, and what they cost.

    Attributes:
        split: ``whole`` or ``deep``.
        form: Of what the steps carry.
        message_bytes_up: Of each message of one picture to the service, in order; the handshake
            aside. With TLS all that a tapper learns are these and the next.
        message_bytes_down: Of each message to the device.
        likeness: Of the pictures to those of the split ``whole`` in fp32.
    """

    split: str
    form: str
    message_bytes_up: tuple[int, ...]
    message_bytes_down: tuple[int, ...]
    likeness: LikenessRecord


class PictureSamples(msgspec.Struct, frozen=True, kw_only=True):
    """The first pictures side by side as PNG files, made smaller where they are large.

    Attributes:
        shown: What the device shows.
        tapped: What the messages of the split ``whole`` show after the last step.
        deep_linear: What a linear map sees in those of the split ``deep``; empty without it.
        deep_search: What a search sees in them.
    """

    shown: tuple[bytes, ...]
    tapped: tuple[bytes, ...]
    deep_linear: tuple[bytes, ...] = ()
    deep_search: tuple[bytes, ...] = ()


class PictureResults(msgspec.Struct, frozen=True, kw_only=True):
    """All of an audit of a text-to-image pipeline.

    Attributes:
        schema: Version of this form.
        producer: Program and version.
        model: Its id or the name of its folder.
        captions: Of the pictures that were attacked.
        steps: Of a picture.
        prompts: What was found of the prompts, whose encoding crosses in all settings.
        control: The same from noise: what is found of nothing.
        findings: One for each attack and setting.
        costs: One for each setting.
        samples: Some pictures, in the first format of each split.
        seconds: What all took.
    """

    schema: int
    producer: str
    model: str
    captions: tuple[str, ...]
    steps: int
    prompts: PromptFinding
    control: PromptFinding
    findings: tuple[PictureFinding, ...]
    costs: tuple[PictureCost, ...]
    samples: PictureSamples
    seconds: float


def picture_results(audit: PicturesAudit) -> PictureResults:
    """What was found, as it is stored."""
    samples = audit.samples
    return PictureResults(
        schema=SCHEMA,
        producer=f"lambda-split {__version__}",
        model=audit.model,
        captions=audit.captions,
        steps=audit.steps,
        prompts=_prompts(audit.prompts),
        control=_prompts(audit.control),
        findings=tuple(map(_finding, audit.attacks)),
        costs=tuple(map(_cost, audit.settings)),
        samples=PictureSamples(
            shown=_files(samples.shown),
            tapped=_files(samples.tapped),
            deep_linear=_files(samples.deep_linear),
            deep_search=_files(samples.deep_search),
        ),
        seconds=audit.seconds,
    )


def likeness_record(likeness: Likeness) -> LikenessRecord:
    """With intervals, and None for what is infinite."""
    different = [one for one in likeness.psnr if math.isfinite(one)]
    return LikenessRecord(
        psnr=tuple(one if math.isfinite(one) else None for one in likeness.psnr),
        ssim=likeness.ssim,
        mean_psnr=mean_estimate(different) if different else None,
        mean_ssim=mean_estimate(likeness.ssim),
    )


def shrunk(picture: Pixels, largest: int = _LARGEST_SAMPLE) -> Pixels:
    """At most so many pixels a side: means of squares of pixels; what is left over is cut off."""
    factor = -(-max(picture.shape[:2]) // largest)
    height, width = (max(1, side // factor) for side in picture.shape[:2])
    kept = picture[: height * factor, : width * factor]
    # (height × factor, width × factor, 3) -> (height, factor, width, factor, 3)
    squares = kept.reshape(height, len(kept) // height, width, kept.shape[1] // width, 3)
    small: Pixels = np.rint(squares.mean(axis=(1, 3))).astype(np.uint8)
    return small


def _prompts(attack: PromptAttack) -> PromptFinding:
    return PromptFinding(
        prompts=attack.prompts,
        candidates=attack.candidates,
        recovered=estimate([Score(one.recovered, one.tokens) for one in attack.prompts]),
        seconds=attack.seconds,
    )


def _finding(attack: PictureAttack) -> PictureFinding:
    return PictureFinding(
        split=attack.split,
        form=attack.form,
        attack=attack.name,
        step=attack.step,
        own_pictures=attack.pairs,
        likeness=likeness_record(attack.likeness),
        seconds=attack.seconds,
    )


def _cost(setting: PictureSetting) -> PictureCost:
    return PictureCost(
        split=setting.split,
        form=setting.form,
        message_bytes_up=setting.sizes.up,
        message_bytes_down=setting.sizes.down,
        likeness=likeness_record(setting.cost),
    )


def _files(pictures: Sequence[Pixels] | Pixels | None) -> tuple[bytes, ...]:
    if pictures is None:
        return ()
    return tuple(encode_png(shrunk(one)) for one in pictures)

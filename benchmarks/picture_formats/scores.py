"""How near a picture is to another one: PSNR, SSIM and VIF.

- PSNR and SSIM as audits compute them.
- VIF of Sheikh and Bovik (2006, doi 10.1109/TIP.2005.859378), in its form over pixels, of the luma
  of ITU-R BT.601; torchmetrics'. It can be above 1 where a picture has more contrast.
"""

from __future__ import annotations

import warnings
from dataclasses import astuple, dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from audit.pictures.scores import psnr, ssim

__all__ = ["Scores", "compare"]

Pictures = npt.NDArray[np.float32]
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Scores:
    """Of one picture, or the mean of several.

    Attributes:
        psnr: In dB, infinite where nothing differs.
        ssim: 1 where nothing differs.
        vif: 1 where nothing differs; NaN where the picture that it should be is flat, as there is
            no information to keep.
    """

    psnr: float
    ssim: float
    vif: float

    @classmethod
    def mean(cls, scores: list[Self]) -> Self:
        """The mean of each, of VIF where it is a number."""
        return cls(*np.nanmean([astuple(one) for one in scores], axis=0).tolist())


def compare(found: Pictures, wanted: Pictures) -> list[Scores]:
    """Score pictures, one by one.

    Args:
        found: float32 (n, height, width, 3), from 0 to 255; sides of 41 at least.
        wanted: What they should be, of the same shape.
    """
    rows = zip(found, wanted, _vif(found, wanted), strict=True)
    return [Scores(psnr(one, other), ssim(one, other), vif) for one, other, vif in rows]


def _vif(found: Pictures, wanted: Pictures) -> list[float]:
    from torchmetrics.functional.image import visual_information_fidelity

    # (n, height, width, 3) -> (n, 1, height, width); float64, as squares of pixels are subtracted
    one, other = (
        torch.from_numpy(pictures.astype(np.float64) @ np.array(_LUMA))[:, None]
        for pictures in (found, wanted)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores: list[float] = visual_information_fidelity(one, other, reduction="none").tolist()
    return scores

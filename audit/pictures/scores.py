"""How near pictures are to others: PSNR, and SSIM of Wang et al. (doi 10.1109/TIP.2003.819861).

SSIM is computed as they do, with a Gaussian window of deviation 1.5, the mean of the colours;
scikit-image's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Likeness", "likeness", "psnr", "ssim"]

_RANGE = 255.0
Picture = npt.NDArray[Any]


@dataclass(frozen=True)
class Likeness:
    """How near each of some pictures is to another one.

    Attributes:
        psnr: In dB, infinite where nothing differs; one a picture.
        ssim: 1 where nothing differs; one a picture.
    """

    psnr: tuple[float, ...]
    ssim: tuple[float, ...]


def likeness(found: Iterable[Picture], wanted: Iterable[Picture]) -> Likeness:
    """Compare pictures one by one; (height, width, 3) each, from 0 to 255.

    Raises:
        ValueError: there are not as many of both.
    """
    pairs = list(zip(found, wanted, strict=True))
    return Likeness(
        psnr=tuple(psnr(one, other) for one, other in pairs),
        ssim=tuple(ssim(one, other) for one, other in pairs),
    )


def psnr(found: Picture, wanted: Picture) -> float:
    """Over all pixels and colours of one picture, in dB."""
    error = float(np.mean((found.astype(np.float64) - wanted) ** 2))
    return float(10 * np.log10(_RANGE**2 / error)) if error else float("inf")


def ssim(found: Picture, wanted: Picture) -> float:
    """Of one picture, (height, width, 3), with sides of 11 at least."""
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(  # type: ignore[no-untyped-call]  # the library's
            found.astype(np.float64),
            wanted.astype(np.float64),
            data_range=_RANGE,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )

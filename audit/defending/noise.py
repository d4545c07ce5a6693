"""What a device can do to hidden states before it sends them, to be measured and not advertised.

*Gaussian* noise adds σ to every value. With σ = Δ √(2 ln(1.25/δ)) / ε a single position is
(ε, δ)-differentially private, where Δ is the largest distance between two positions' states
(Dwork & Roth 2014, theorem A.1). *d_χ* noise has a density proportional to exp(-η ‖z‖): two states
at distance d are then at most η d apart in log-likelihood (Feyisetan et al. 2020). *Permutation*
shuffles the channels by a secret order; it is no defence by itself, since the trunk has to undo it,
but others rely on it, and it is cheap to measure. *int* rounds every value to so few bits, as a
coarse codec would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["NOTHING", "Defence", "Kind", "apply", "epsilon", "noise_scale", "quantize_rows"]

Floats = npt.NDArray[np.float32]
DELTA = 1e-5


Kind = Literal["none", "gaussian", "d_chi", "int", "permutation"]


@dataclass(frozen=True)
class Defence:
    """What is done to the upload.

    Attributes:
        kind: ``none``, ``gaussian``, ``d_chi``, ``int`` or ``permutation``.
        strength: For noise, its root-mean-square length as a share of the states' own; for ``int``
            the bits of a value; else 0.
    """

    kind: Kind = "none"
    strength: float = 0.0

    @property
    def random(self) -> bool:
        """Whether it is noise."""
        return self.kind in {"gaussian", "d_chi"}


NOTHING = Defence()


def noise_scale(defence: Defence, rms: float, width: int) -> float:
    """The noise's parameter: σ for Gaussian noise, 1/η for d_χ noise; 0 without noise.

    Args:
        defence: The defence.
        rms: Root-mean-square value of the hidden states.
        width: Hidden size.
    """
    length = defence.strength * rms * math.sqrt(width)  # of the noise vector, root mean square
    if defence.kind == "gaussian":
        return length / math.sqrt(width)
    if defence.kind == "d_chi":
        # ‖z‖ ~ Gamma(width, 1/η), whose root mean square is √(width (width + 1)) / η.
        return length / math.sqrt(width * (width + 1))
    return 0.0


def epsilon(defence: Defence, scale: float, sensitivity: float) -> float:
    """The privacy parameter: ε at δ = 1e-5 for Gaussian noise, η Δ for d_χ noise.

    Args:
        defence: The defence.
        scale: As from :func:`noise_scale`.
        sensitivity: Δ, the largest distance between the states of two positions.
    """
    if scale == 0.0:
        return math.inf
    if defence.kind == "gaussian":
        return sensitivity * math.sqrt(2 * math.log(1.25 / DELTA)) / scale
    return sensitivity / scale


def apply(hidden: Floats, defence: Defence, scale: float, generator: np.random.Generator) -> Floats:
    """Hidden states as a device would send them, float32 (positions, width).

    Args:
        hidden: What the head computed.
        defence: The defence.
        scale: As from :func:`noise_scale`.
        generator: Where noise comes from; a device would use the system's random source. Its first
            draw decides a permutation, so that equal seeds give equal ones.
    """
    if defence.kind == "permutation":
        return np.ascontiguousarray(hidden[:, generator.permutation(hidden.shape[1])])
    if defence.kind == "int":
        return quantize_rows(hidden, int(defence.strength))
    if scale == 0.0:
        return hidden
    noise = generator.standard_normal(hidden.shape)
    if defence.kind == "d_chi":
        lengths = generator.gamma(hidden.shape[1], scale, size=(len(hidden), 1))
        noise *= lengths / np.linalg.norm(noise, axis=1, keepdims=True)
        return (hidden + noise).astype(np.float32)
    return (hidden + scale * noise).astype(np.float32)


def quantize_rows(hidden: Floats, bits: int) -> Floats:
    """Every row rounded to a few evenly spaced values, its largest magnitude among them.

    Args:
        hidden: float32 (positions, width).
        bits: 1 to 8; with 1 only the signs are left, at the row's mean magnitude.
    """
    if bits == 1:
        made: Floats = np.where(hidden < 0, -1.0, 1.0) * np.abs(hidden).mean(axis=1, keepdims=True)
    else:
        most = 2 ** (bits - 1) - 1
        step = np.abs(hidden).max(axis=1, keepdims=True) / most
        step = np.where(step > 0, step, 1.0)
        made = np.rint(hidden / step) * step
    return made.astype(np.float32)

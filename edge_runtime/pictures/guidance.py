"""Classifier-free guidance, where the device does it: with the split ``deep``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Guidance"]

Tensor = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Guidance:
    """How two predictions of an image become one.

    Attributes:
        scale: Of classifier-free guidance (arXiv 2207.12598); 1 is the prompt's prediction as it
            is.
        rescale: How far the result's spread is brought back to that of the prompt's own prediction,
            φ of arXiv 2305.08891, section 3.4.
    """

    scale: float
    rescale: float = 0.0

    def apply(self, rows: Tensor) -> Tensor:
        """Guide.

        Args:
            rows: float32 (2 × images, C, H, W): for the prompts, then for the negative prompts.

        Returns:
            float32 (images, C, H, W).
        """
        prompt, negative = np.split(rows, 2)
        result: Tensor = negative + np.float32(self.scale) * (prompt - negative)
        if self.rescale == 0.0:
            return result
        share = np.float32(self.rescale)
        rescaled = result * (_spread(prompt) / _spread(result))
        guided: Tensor = share * rescaled + (np.float32(1) - share) * result
        return guided


def _spread(tensor: Tensor) -> Tensor:
    """Each image's sample standard deviation: (images, 1, 1, 1)."""
    spread = tensor.std(axis=(1, 2, 3), ddof=1, keepdims=True, dtype=np.float64)
    return np.asarray(spread, np.float32)

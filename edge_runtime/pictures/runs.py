"""A picture on its way through one connection after another: what a session's steps are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_runtime.pictures.blocks import Told
from edge_runtime.pictures.connection import PictureConnection
from edge_runtime.pictures.guidance import Guidance
from lambda_split.diffusion.solver import SolverState
from lambda_split.wire.pictures.settings import PictureSettings
from lambda_split.wire.pictures.trajectory import Trajectory
from lambda_split.wire.tensor_codecs import encode
from lambda_split.wire.tensor_format import TensorFormat

__all__ = ["DenoisingStep", "PictureOrder", "PictureRun", "begin"]

Tensor = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PictureOrder:
    """What is asked of the trunk, and what the device does itself.

    Attributes:
        settings: What is made: with ``denoising`` where the trunk is the whole denoiser, else with
            ``timesteps``.
        conditioning: Context, then pooled output where there is one; float32.
        form: How they cross the wire: a floating-point format.
        trajectory: The way of its latents.
        start: The state before the first step; None where it is drawn from the seed.
        told: With the split ``deep``: what the denoiser's own blocks are told.
        guidance: With the split ``deep``: what becomes of two predictions; None where there is
            one.
    """

    settings: PictureSettings
    conditioning: Sequence[Tensor]
    form: TensorFormat
    trajectory: Trajectory
    start: SolverState | None = None
    told: Told | None = None
    guidance: Guidance | None = None


@dataclass(frozen=True, eq=False)
class DenoisingStep:
    """A step that was taken.

    Attributes:
        number: 0 for the first.
        noise: What was predicted, after guidance, as it was decoded: float32 (images, C, H, W).
        before: The state that it was predicted for.
        after: The state that it led to.
    """

    number: int
    noise: Tensor
    before: SolverState
    after: SolverState


class PictureRun(Protocol):
    """One picture on its way.

    Attributes:
        order: What is made.
        step: The step that comes next.
    """

    order: PictureOrder
    step: int

    def lost(self) -> None:
        """Nothing of it is known to the server of a new connection."""

    def advance(self, connection: PictureConnection) -> DenoisingStep:
        """Take the next step; where that fails, it may be tried again on another connection."""


def begin(order: PictureOrder, connection: PictureConnection) -> None:
    """Send settings and conditioning; the answer is not waited for."""
    payload = b"".join(encode(tensor, order.form) for tensor in order.conditioning)
    connection.begin(order.settings, payload, order.form, tensors=len(order.conditioning))

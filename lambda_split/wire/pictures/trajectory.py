"""The way of a picture's latents, which device and trunk go alike, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from lambda_split.diffusion.gaussian import START, standard_normal
from lambda_split.diffusion.scheduler_settings import resolve
from lambda_split.diffusion.solver import Solver, SolverState
from lambda_split.diffusion.solvers import make_solver
from lambda_split.wire.pictures.settings import Denoising
from lambda_split.wire.tensor_format import TensorFormat

__all__ = ["Trajectory"]

Latents = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Trajectory:
    """Solver, seed and images of a picture.

    Attributes:
        solver: Its steps.
        denoising: Its settings.
        images: Index of each image.
        shape: (C, H, W) of the latents.
    """

    solver: Solver
    denoising: Denoising
    images: range
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, denoising: Denoising, images: int, shape: tuple[int, int, int]) -> Self:
        """What a picture's settings say.

        Args:
            denoising: Of the picture.
            images: How many are made at once.
            shape: (C, H, W) of the latents.

        Raises:
            SchedulerUnsupported: a solver or schedule that is not known here.
            UsageError: steps that the solver cannot do.
        """
        first = denoising.first_image
        return cls(
            solver=make_solver(denoising.scheduler, denoising.steps),
            denoising=denoising,
            images=range(first, first + images),
            shape=shape,
        )

    def noise(self, step: int) -> Latents:
        """Fresh noise of a step: float32 (images, C, H, W)."""
        return standard_normal(self.denoising.seed, step, self.images, self.shape)

    def start(self) -> SolverState:
        """The state before the first step, from the seed."""
        return self.solver.start(self.noise(START))

    def after(self, output: Latents, step: int, state: SolverState) -> SolverState:
        """The state after a step."""
        noise = self.noise(step) if self.solver.needs_noise(step) else None
        return self.solver.step(output, step, state, noise)

    def first_reference(self, state: SolverState) -> Latents | None:
        """What the first step's difference is coded against, where there is anything like it.

        Nearly all of what the denoiser sees then is noise, and noise is what it predicts: so its
        input is the best guess at its output. A denoiser that predicts something else has no guess.
        """
        # As resolved: a config that does not say what is predicted means the noise.
        if resolve(self.denoising.scheduler).prediction_type != "epsilon":
            return None
        return self.solver.scale_input(state.sample, 0)

    def state_tensors(self, step: int, form: TensorFormat) -> int:
        """How many tensors a state before this step has."""
        return 1 + self.solver.memory_count(step) + int(form.delta and step > 0)

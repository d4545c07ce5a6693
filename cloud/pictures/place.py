"""What a session holds in a denoiser's engine: its picture, and how far it has come.

A picture's state is a function of what the device sent, and small: the latents, what the solver
remembers, and what differences are coded against. The device can send all of it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cloud.pictures.denoiser import Conditioning
from lambda_split.diffusion.solver import SolverState
from lambda_split.errors import PositionGap, StateMismatch
from lambda_split.wire.pictures.settings import PictureSettings
from lambda_split.wire.pictures.trajectory import Trajectory
from lambda_split.wire.tensor_format import TensorFormat

__all__ = ["Picture", "Place", "state_at"]

Latents = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture at some step.

    Attributes:
        settings: What is made.
        conditioning: A row for each prompt, and for each negative one that was sent.
        trajectory: None where the device alone knows the latents.
        step: The next step.
        state: Before that step; None before the first, which begins from the seed.
        reference: What the answer's difference is coded against; None where there is none.
    """

    settings: PictureSettings
    conditioning: Conditioning
    trajectory: Trajectory | None
    step: int = 0
    state: SolverState | None = None
    reference: Latents | None = None


@dataclass(eq=False)
class Place:
    """What a session holds.

    Attributes:
        nbytes: Memory that is set aside for it.
        picture: The picture that it makes, if any.
        before: What it was before the last request, to take that back.
    """

    nbytes: int
    picture: Picture | None = None
    before: list[Picture | None] = field(default_factory=list)

    def move(self, picture: Picture) -> None:
        """Go on; :meth:`revert` takes it back."""
        self.before = [self.picture]
        self.picture = picture

    def revert(self) -> None:
        """Take the last move back; a second time, nothing happens."""
        if self.before:
            self.picture = self.before.pop()


def state_at(
    picture: Picture, step: int, tensors: list[Latents], form: TensorFormat
) -> tuple[SolverState, Latents | None]:
    """The state from which a step goes on: the picture's own, or the one that came with it.

    Args:
        picture: Has a trajectory.
        step: The step that is asked for.
        tensors: What came with it: nothing, or latents, what the solver remembers, reference.
        form: The session's format.

    Returns:
        The state and the reference.

    Raises:
        PositionGap: nothing came, and the picture is at another step.
        StateMismatch: another number of tensors came than the step needs.
    """
    trajectory = picture.trajectory
    if trajectory is None:
        raise PositionGap(step, 0)
    if tensors:
        expected = trajectory.state_tensors(step, form)
        if len(tensors) != expected:
            raise StateMismatch(len(tensors), expected)
        remembered = trajectory.solver.memory_count(step)
        state = SolverState(tensors[0], tuple(tensors[1 : 1 + remembered]))
        if step == 0:
            return state, trajectory.first_reference(state)
        return state, tensors[-1] if expected > 1 + remembered else None
    if step == 0:
        state = trajectory.start()
        return state, trajectory.first_reference(state)
    if step != picture.step or picture.state is None:
        raise PositionGap(step, picture.step)
    return picture.state, picture.reference

"""The split ``deep``, searched: which latents give these features?

Whoever has the public model has the device's first block. He changes latents until that block makes
of them what crossed the wire, and lets the public denoiser take the noise off.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from audit.pictures.denoising import predict
from audit.pictures.model import PublicModel
from audit.pictures.sessions import told_of
from audit.pictures.tapped import TappedPicture
from cloud.pictures.denoiser import Conditioning
from lambda_split.diffusion.solver import Solver, SolverState
from lambda_split.diffusion.solvers import make_solver
from lambda_split.errors import UsageError
from lambda_split.partition.pipelines.deep import FirstBlocks

__all__ = ["ASSUMED_GUIDANCE", "ROUNDS", "search"]

Floats = npt.NDArray[np.float32]
ROUNDS = 400
ASSUMED_GUIDANCE = 5.0  # with the split ``deep`` it does not cross: what devices ask for by default
_RATE = 0.1


def search(
    model: PublicModel,
    pictures: Sequence[TappedPicture],
    step: int,
    *,
    guidance: float = ASSUMED_GUIDANCE,
    rounds: int = ROUNDS,
) -> tuple[Floats, float]:
    """Search for the latents of a step by gradient descent (Adam), from zeros.

    Args:
        model: The public one.
        pictures: Of the split ``deep``, of the same settings.
        step: Counted from 0.
        guidance: What he takes for the scale of guidance, which does not cross.
        rounds: Of the descent.

    Returns:
        The pictures' latents as far as that step tells, float32 (n, C, h, w); and how far the
        features found are from those that crossed, as a share of their spread.

    Raises:
        UsageError: their timesteps are not those of the model's own scheduler.
    """
    solver = _solver(model, pictures[0])
    told = [picture.conditioning for picture in pictures]
    together = Conditioning.together(told)
    # n × (2, channels, h, w) -> (2 n, channels, h, w), rows as in ``together``
    wanted = torch.from_numpy(np.concatenate([picture.features[step] for picture in pictures]))
    spread = float(wanted.var())
    settings = pictures[0].settings
    shape = (len(pictures), pictures[0].channels, settings.height, settings.width)
    scaled = torch.zeros(shape, requires_grad=True)
    first = FirstBlocks(model.denoiser.unet).requires_grad_(requires_grad=False)
    asked_of_first = told_of(together, solver.timesteps[step])
    adam = torch.optim.Adam([scaled], lr=_RATE)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(adam, rounds)
    loss = torch.zeros(())
    for _ in range(rounds):
        adam.zero_grad()
        found, *_ = first(scaled.repeat_interleave(2, dim=0), asked_of_first)
        loss = torch.nn.functional.mse_loss(found, wanted) / spread
        torch.autograd.backward(loss)
        adam.step()
        slower.step()
    latents = scaled.detach().numpy() / np.float32(solver.rows[step].input_scale)
    states = [SolverState(one[None]) for one in latents]
    outputs = predict(model.denoiser, told, solver, states, step, guidance=guidance)
    originals = [
        solver.predicted_original(output, step, state)
        for output, state in zip(outputs, states, strict=True)
    ]
    return np.concatenate(originals), loss.item() ** 0.5


def _solver(model: PublicModel, picture: TappedPicture) -> Solver:
    """The public scheduler's, which has to have the timesteps that crossed."""
    seen = picture.settings.timesteps
    solver = make_solver(model.scheduler, len(seen))
    if len(seen) != solver.steps or not np.allclose(seen, solver.timesteps):
        raise UsageError("the timesteps that crossed are not those of the model's own scheduler")
    return solver

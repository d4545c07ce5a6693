"""The split ``deep``, searched: which latents give these features?

Whoever has the public model has the device's first block. He changes latents until that block makes
of them what crossed the wire, and lets the public denoiser take the noise off.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.picture_formats.denoising import Asked, predict
from benchmarks.tapped_pictures.deep import told
from cloud.pictures.denoiser import Conditioning, Denoiser
from lambda_split.diffusion.solver import SolverState
from lambda_split.partition.pipelines.deep import FirstBlocks

__all__ = ["search"]

Floats = npt.NDArray[np.float32]
_ROUNDS = 400
_RATE = 0.1


def search(
    denoiser: Denoiser, pictures: Sequence[Asked], features: Floats, step: int
) -> tuple[Floats, float]:
    """Search for the latents of a step by gradient descent (Adam), from zeros.

    Args:
        denoiser: The public one.
        pictures: Of them the prompt's encoding, the timesteps and the solver are used, which cross
            the wire; not the seed.
        features: What crossed in that step, float32 (n, 2, channels, h, w).
        step: Counted from 0.

    Returns:
        The pictures' latents as far as that step tells, float32 (n, C, h, w); and how far the
        features found are from those that crossed, as a share of their spread.
    """
    solver = pictures[0].trajectory.solver
    # Rows: each picture with its prompt, and with the negative one.
    together = Conditioning.together([asked.conditioning for asked in pictures])
    wanted = torch.from_numpy(features).flatten(0, 1)  # (2 n, channels, h, w)
    spread = float(wanted.var())
    scaled = torch.zeros((len(pictures), *pictures[0].trajectory.shape), requires_grad=True)
    first = FirstBlocks(denoiser.unet).requires_grad_(requires_grad=False)
    asked_of_first = told(together, solver.timesteps[step])
    adam = torch.optim.Adam([scaled], lr=_RATE)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(adam, _ROUNDS)
    for _ in range(_ROUNDS):
        adam.zero_grad()
        found, *_ = first(scaled.repeat_interleave(2, dim=0), asked_of_first)
        loss = torch.nn.functional.mse_loss(found, wanted) / spread
        torch.autograd.backward(loss)
        adam.step()
        slower.step()
    latents = scaled.detach().numpy() / np.float32(solver.rows[step].input_scale)
    states = [SolverState(one[None]) for one in latents]
    outputs = predict(denoiser, pictures, states, step)
    originals = [
        solver.predicted_original(output, step, state)
        for output, state in zip(outputs, states, strict=True)
    ]
    return np.concatenate(originals), loss.item() ** 0.5

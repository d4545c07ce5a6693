"""Device and trunk in one process: the same codecs, solvers and rules as over a socket.

The denoiser runs for many pictures at once; besides that, each picture goes its way alone, exactly
as ``edge_runtime`` and ``cloud`` let it go. ``tests/benchmarks/test_picture_formats.py`` compares
the latents with those of a real device and server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from cloud.pictures.denoiser import Conditioning, Denoiser, guided
from lambda_split.diffusion.solver import SolverState
from lambda_split.wire.pictures.trajectory import Trajectory
from lambda_split.wire.tensor_codecs import decode, encode
from lambda_split.wire.tensor_format import TensorFormat

__all__ = ["Asked", "Receiver", "predict", "synchronized", "unsynchronized"]

Latents = npt.NDArray[np.float32]
_CHUNK = 20  # pictures that are in the denoiser together


@dataclass(frozen=True, eq=False)
class Asked:
    """One picture.

    Attributes:
        trajectory: Its way, of one image.
        conditioning: Two rows: of the prompt, and of the negative prompt.
        guidance: Scale of classifier-free guidance.
    """

    trajectory: Trajectory
    conditioning: Conditioning
    guidance: float


class Receiver:
    """The device of one picture.

    Attributes:
        state: What it knows before the next step.
        states: Before each step that was taken.
        payloads: What each step brought, as it was on the wire.
    """

    def __init__(self, asked: Asked, form: TensorFormat) -> None:
        self._asked = asked
        self._form = form
        self.state = asked.trajectory.start()
        self.states: list[SolverState] = []
        self.payloads: list[bytes] = []
        self._reference = asked.trajectory.first_reference(self.state)

    def take(self, output: Latents, step: int) -> None:
        """Go a step with what is left of the predicted noise, float32 (1, C, h, w)."""
        payload = encode(output, self._form, self._reference)
        known = decode(payload, self._form, output.shape, self._reference)
        self.payloads.append(payload)
        self.states.append(self.state)
        self.state = self._asked.trajectory.after(known, step, self.state)
        self._reference = known


def synchronized(
    denoiser: Denoiser, pictures: Sequence[Asked], form: TensorFormat
) -> list[Receiver]:
    """Make pictures with a trunk that steps with what the device decodes."""
    receivers = [Receiver(asked, form) for asked in pictures]
    for step in range(pictures[0].trajectory.solver.steps):
        # Both sides have the same state, so that one copy of it is enough.
        outputs = predict(denoiser, pictures, [one.state for one in receivers], step)
        for receiver, output in zip(receivers, outputs, strict=True):
            receiver.take(output, step)
    return receivers


def unsynchronized(
    denoiser: Denoiser, pictures: Sequence[Asked], forms: Sequence[TensorFormat]
) -> dict[TensorFormat, list[Receiver]]:
    """Make pictures with a trunk that steps with its own exact noise.

    What such a trunk predicts does not depend on the format, so one run serves all formats.
    """
    found = {form: [Receiver(asked, form) for asked in pictures] for form in forms}
    states = [asked.trajectory.start() for asked in pictures]
    for step in range(pictures[0].trajectory.solver.steps):
        outputs = predict(denoiser, pictures, states, step)
        for receivers in found.values():
            for receiver, output in zip(receivers, outputs, strict=True):
                receiver.take(output, step)
        states = [
            asked.trajectory.after(output, step, state)
            for asked, output, state in zip(pictures, outputs, states, strict=True)
        ]
    return found


def predict(
    denoiser: Denoiser, pictures: Sequence[Asked], states: Sequence[SolverState], step: int
) -> list[Latents]:
    """The trunk's part of a step: float32 (1, C, h, w) of each picture, after guidance."""
    outputs: list[Latents] = []
    for first in range(0, len(pictures), _CHUNK):
        chunk = pictures[first : first + _CHUNK]
        solver, count = chunk[0].trajectory.solver, len(chunk)
        scaled = [solver.scale_input(state.sample, step) for state in states[first : first + count]]
        inputs = torch.from_numpy(np.concatenate(scaled)).repeat(2, 1, 1, 1)  # (2 count, C, h, w)
        rows = denoiser.predict(
            inputs, torch.full((2 * count,), solver.timesteps[step]), _rows(chunk)
        )
        noise = guided(rows, count, chunk[0].guidance, 0.0).numpy()
        outputs += list(np.asarray(noise[:, None], np.float32))  # count × (1, C, h, w)
    return outputs


def _rows(pictures: Sequence[Asked]) -> Conditioning:
    """All prompts' rows, then all negative prompts'."""
    both = Conditioning.together([asked.conditioning for asked in pictures])

    def sorted_rows(rows: torch.Tensor | None) -> torch.Tensor | None:
        return None if rows is None else torch.cat([rows[0::2], rows[1::2]])

    context = torch.cat([both.context[0::2], both.context[1::2]])
    return Conditioning(context, sorted_rows(both.pooled), sorted_rows(both.time_ids))

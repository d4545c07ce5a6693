"""Device and trunk in one process: the same codecs, solvers and rules as over a socket.

The denoiser runs for many pictures at once; besides that, each picture goes its way alone, exactly
as ``edge_runtime`` and ``cloud`` let it go. Tests compare latents and messages with those of a real
device and server.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from audit.pictures.asking import Asked
from cloud.pictures.denoiser import Conditioning, Denoiser, guided
from lambda_split.diffusion.solver import Solver, SolverState
from lambda_split.wire.tensor_codecs import decode, encode
from lambda_split.wire.tensor_format import TensorFormat

__all__ = ["Receiver", "chunks", "predict", "synchronized", "unsynchronized"]

Latents = npt.NDArray[np.float32]
_CHUNK = 20  # pictures that are in the denoiser together


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
        outputs = _predict_asked(denoiser, pictures, [one.state for one in receivers], step)
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
        outputs = _predict_asked(denoiser, pictures, states, step)
        for receivers in found.values():
            for receiver, output in zip(receivers, outputs, strict=True):
                receiver.take(output, step)
        states = [
            asked.trajectory.after(output, step, state)
            for asked, output, state in zip(pictures, outputs, states, strict=True)
        ]
    return found


def predict(
    denoiser: Denoiser,
    told: Sequence[Conditioning],
    solver: Solver,
    states: Sequence[SolverState],
    step: int,
    *,
    guidance: float,
) -> list[Latents]:
    """The trunk's part of a step: float32 (1, C, h, w) of each picture, after guidance.

    Args:
        denoiser: The whole one.
        told: Of each picture its prompt's row and its negative prompt's.
        solver: Of all pictures.
        states: Of each picture, before the step.
        step: Counted from 0.
        guidance: Its scale.
    """
    outputs: list[Latents] = []
    for chunk in chunks(len(told)):
        count = len(chunk)
        scaled = [solver.scale_input(states[number].sample, step) for number in chunk]
        inputs = torch.from_numpy(np.concatenate(scaled)).repeat(2, 1, 1, 1)  # (2 count, C, h, w)
        timesteps = torch.full((2 * count,), solver.timesteps[step])
        rows = denoiser.predict(inputs, timesteps, _rows([told[number] for number in chunk]))
        noise = guided(rows, count, guidance, 0.0).numpy()
        outputs += list(np.asarray(noise[:, None], np.float32))  # count × (1, C, h, w)
    return outputs


def chunks(count: int) -> Iterator[range]:
    """Numbers of so many pictures, in groups that are in the denoiser together."""
    for first in range(0, count, _CHUNK):
        yield range(first, min(first + _CHUNK, count))


def _predict_asked(
    denoiser: Denoiser, pictures: Sequence[Asked], states: Sequence[SolverState], step: int
) -> list[Latents]:
    told = [asked.conditioning for asked in pictures]
    solver, guidance = pictures[0].trajectory.solver, pictures[0].guidance
    return predict(denoiser, told, solver, states, step, guidance=guidance)


def _rows(told: Sequence[Conditioning]) -> Conditioning:
    """All prompts' rows, then all negative prompts'."""
    both = Conditioning.together(list(told))

    def sorted_rows(rows: torch.Tensor | None) -> torch.Tensor | None:
        return None if rows is None else torch.cat([rows[0::2], rows[1::2]])

    context = torch.cat([both.context[0::2], both.context[1::2]])
    return Conditioning(context, sorted_rows(both.pooled), sorted_rows(both.time_ids))

"""A picture whose denoiser begins and ends on the device: features cross, latents do not.

A step cannot be asked for before the one before it is taken, since its latents come of that. What
was computed for it is kept until it is: after a loss the same bytes go to the next server.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.pictures.blocks import BlockRunner, FirstOutput
from edge_runtime.pictures.connection import PictureConnection
from edge_runtime.pictures.runs import DenoisingStep, PictureOrder, begin
from edge_runtime.stats import Meter
from lambda_split.errors import UsageError
from lambda_split.wire.pictures.layout import inner_shapes
from lambda_split.wire.tensor_codecs import decode, encode
from lambda_split.wire.tensor_format import TensorFormat, payload_bytes

__all__ = ["DeepRun"]

Tensor = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Ready:
    """A step that may be asked for, as often as it takes."""

    first: FirstOutput
    form: TensorFormat
    payload: bytes


class DeepRun:
    """See :class:`~edge_runtime.pictures.runs.PictureRun`.

    Args:
        order: What is made; its ``told`` is set.
        blocks: The device's blocks of the denoiser.
        meter: Told how long they take: the first blocks as head, the last as tail.

    Raises:
        UsageError: the order is of another split.
    """

    def __init__(self, order: PictureOrder, blocks: BlockRunner, meter: Meter) -> None:
        if order.told is None:
            raise UsageError("this order is for a trunk that is the whole denoiser")
        self.order = order
        self.state = order.start or order.trajectory.start()
        self.step = 0
        self._told = order.told
        self._blocks = blocks
        self._meter = meter
        self._begun = False
        self._ready: _Ready | None = None

    def lost(self) -> None:
        """Nothing of it is known to the server of a new connection."""
        self._begun = False

    def advance(self, connection: PictureConnection) -> DenoisingStep:
        """Run the first blocks, ask the trunk, run the last blocks, and take the step."""
        order, starts = self.order, not self._begun
        if starts:
            begin(order, connection)
            self._begun = True
        ready = self._prepare(connection.format)
        if starts and connection.in_flight >= connection.max_in_flight:
            connection.receive()
            starts = False
        _, leaving = inner_shapes(order.settings, self._blocks.geometry)
        connection.step(
            self.step,
            ready.payload,
            tensors=1,
            answer_bytes=payload_bytes(connection.format, leaving),
        )
        if starts:
            connection.receive()  # that it has begun
        features = decode(connection.receive().payload, connection.format, leaving)
        with self._meter.tail():
            rows = self._blocks.last(features, ready.first, self.state.sample.shape[1:])
        noise = rows if order.guidance is None else order.guidance.apply(rows)
        before = self.state
        after = order.trajectory.after(noise, self.step, before)
        taken = DenoisingStep(self.step, noise, before, after)
        self.state, self.step, self._ready = after, self.step + 1, None
        return taken

    def _prepare(self, form: TensorFormat) -> _Ready:
        """What the step needs of the first blocks: computed once, whatever becomes of it."""
        if self._ready is None or self._ready.form != form:
            solver, settings = self.order.trajectory.solver, self.order.settings
            scaled = solver.scale_input(self.state.sample, self.step)
            latents = np.concatenate([scaled] * settings.branches)  # (rows, C, H, W)
            with self._meter.head():
                first = self._blocks.first(latents, settings.timesteps[self.step], self._told)
            self._ready = _Ready(first, form, encode(first.features, form))
        return self._ready

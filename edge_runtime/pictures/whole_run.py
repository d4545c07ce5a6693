"""A picture whose denoiser is the trunk as a whole: only the predicted noise crosses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_runtime.pictures.connection import PictureConnection
from edge_runtime.pictures.runs import DenoisingStep, PictureOrder, begin
from lambda_split.errors import PositionGap
from lambda_split.wire.tensor_codecs import decode, encode
from lambda_split.wire.tensor_format import Base, TensorFormat, payload_bytes

__all__ = ["WholeRun"]

_EXACT = TensorFormat(Base.FP32)
Tensor = npt.NDArray[np.float32]


class WholeRun:
    """See :class:`~edge_runtime.pictures.runs.PictureRun`.

    Steps are asked for ahead of their answers, as far as the server allows: it goes the same way by
    itself, so that nothing has to be waited for in between.
    """

    def __init__(self, order: PictureOrder) -> None:
        self.order = order
        self.state = order.start or order.trajectory.start()
        self.step = 0
        self.reference = order.trajectory.first_reference(self.state)
        self._asked = 0  # steps, on this connection
        self._begun = False
        self._told = False  # where it goes on from

    def lost(self) -> None:
        """Nothing of it is known to the server of a new connection."""
        self._begun = self._told = False
        self._asked = self.step

    def advance(self, connection: PictureConnection) -> DenoisingStep:
        """Ask for as much as may be in flight, and take the next step that comes back."""
        order = self.order
        if not self._begun:
            begin(order, connection)
            self._begun = True
            self._ask(connection)
            connection.receive()  # that it has begun
        self._ask(connection)
        frame = connection.receive()
        shape = self.state.sample.shape
        noise = decode(frame.payload, connection.format, shape, self.reference)
        before = self.state
        after = order.trajectory.after(noise, self.step, before)
        taken = DenoisingStep(self.step, noise, before, after)
        self.state, self.reference, self.step = after, noise, self.step + 1
        return taken

    def _ask(self, connection: PictureConnection) -> None:
        form = connection.format
        answer_bytes = payload_bytes(form, self.state.sample.shape)
        steps = self.order.trajectory.solver.steps
        while self._asked < steps and connection.in_flight < connection.max_in_flight:
            # The first one here tells where it goes on from; the trunk knows the rest by itself.
            tells = not self._told and (self.step > 0 or self.order.start is not None)
            tensors = self._state_tensors(form) if tells else []
            self._told = True
            payload = b"".join(encode(tensor, _EXACT) for tensor in tensors)
            connection.step(self._asked, payload, tensors=len(tensors), answer_bytes=answer_bytes)
            self._asked += 1

    def _state_tensors(self, form: TensorFormat) -> list[Tensor]:
        """The state before the next step, as a server that knows nothing needs it."""
        tensors = [self.state.sample, *self.state.memory]
        if form.delta and self.step > 0:
            if self.reference is None:
                raise PositionGap(self.step, 0)
            tensors.append(self.reference)
        return tensors

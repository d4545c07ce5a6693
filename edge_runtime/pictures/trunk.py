"""The denoiser as the device sees it: one that never forgets.

The device is the source of truth. It goes every step of the latents itself; when the connection is
lost, the server restarts, or another replica answers, it reconnects with backoff, sends the
picture's conditioning and the state that it has reached, and goes on with the same picture.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from edge_runtime.endpoint import Endpoint
from edge_runtime.outage import Outage
from edge_runtime.pictures.connection import PictureConnection
from edge_runtime.retry import RetryPolicy
from edge_runtime.stats import Meter
from lambda_split.diffusion.solver import SolverState
from lambda_split.errors import (
    CapacityRefused,
    LambdaSplitError,
    LinkError,
    PositionGap,
    ServerError,
    UsageError,
)
from lambda_split.wire.messages import PictureHello
from lambda_split.wire.pictures.settings import PictureSettings
from lambda_split.wire.pictures.trajectory import Trajectory
from lambda_split.wire.tensor_codecs import decode, encode
from lambda_split.wire.tensor_format import Base, TensorFormat, payload_bytes

__all__ = ["DenoisingStep", "PictureOrder", "ReplayingDenoiser"]

_logger = logging.getLogger(__name__)
_EXACT = TensorFormat(Base.FP32)
Tensor = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PictureOrder:
    """What is asked of the trunk.

    Attributes:
        settings: What is made; its ``denoising`` is set.
        conditioning: Context, then pooled output where there is one; float32.
        form: How they cross the wire: a floating-point format.
        trajectory: The way of its latents.
        start: The state before the first step; None where the trunk draws it from the seed too.
    """

    settings: PictureSettings
    conditioning: Sequence[Tensor]
    form: TensorFormat
    trajectory: Trajectory
    start: SolverState | None = None


@dataclass(frozen=True, eq=False)
class DenoisingStep:
    """A step that was taken.

    Attributes:
        number: 0 for the first.
        noise: What the trunk predicted, as it was decoded: float32 (images, C, H, W).
        before: The state that it was predicted for.
        after: The state that it led to.
    """

    number: int
    noise: Tensor
    before: SolverState
    after: SolverState


class ReplayingDenoiser:
    """Asks for steps over as many connections as it takes.

    Args:
        endpoint: Where the trunk is.
        hello: What this device needs, for all its pictures.
        meter: Counts bytes and time.
        longest_answer: Bytes of the longest payload that a step may bring back.
        retry: How hard to try when the connection is lost.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        hello: PictureHello,
        meter: Meter,
        *,
        longest_answer: int,
        retry: RetryPolicy,
    ) -> None:
        self._endpoint = endpoint
        self._hello = hello
        self._meter = meter
        self._longest_answer = longest_answer
        self._outage = Outage(retry)
        self._connection: PictureConnection | None = None
        self._running: _Run | None = None  # the picture that the connection is about
        self._closed = False

    def connect(self) -> None:
        """Connect once, without retrying, so that a wrong setting is told at once.

        Raises:
            LinkError: the server cannot be reached, or the connection broke.
            WireError: the server refused the session, failed, or broke the protocol.
        """
        self._connection = self._connect(0)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def close(self) -> None:
        """End the session for good."""
        self._closed = True
        self._disconnect()

    def run(self, order: PictureOrder) -> Iterator[DenoisingStep]:
        """Take all steps of a picture.

        Steps are asked for ahead of their answers, as far as the server allows: it goes the same
        way by itself, so that nothing has to be waited for in between.

        Yields:
            Each step, in order.

        Raises:
            RequestError: the server cannot make this picture.
            ConnectionLost: given up after :attr:`RetryPolicy.give_up_after_s`.
            Refused: a server that answers now does not serve this bundle.
            ProtocolError: the server broke the protocol.
            RemoteError: the server objected in a way that this version does not know.
            UsageError: the session was closed, or another picture was begun.
        """
        if self._closed:
            raise UsageError("this session was closed: open another one")
        if self._connection is not None and self._connection.in_flight:
            self._disconnect()  # answers of a picture that was left are on their way
        run = self._running = _Run(order, order.start or order.trajectory.start())
        try:
            while run.step < order.trajectory.solver.steps:
                yield self._next(run)
        finally:
            left = self._running is run  # otherwise what is in flight is another picture's
            if left and self._connection is not None and self._connection.in_flight:
                self._disconnect()

    def _next(self, run: _Run) -> DenoisingStep:
        if self._closed:
            raise UsageError("this session was closed: open another one")
        if self._running is not run:
            raise UsageError("another picture was begun on this session: it makes one at a time")
        self._outage.await_progress()
        while True:
            try:
                connection = self._connection
                if connection is None:
                    self._outage.pause()
                    connection = self._connection = self._connect(run.step)
                    self._meter.reconnects += 1
                    run.lost()
                step = run.advance(connection)
            except (LinkError, ServerError, CapacityRefused) as error:
                self._outage.met(error)
                self._disconnect()
                self._outage.give_up(error)
            except LambdaSplitError:
                self._disconnect()
                raise
            else:
                self._outage.over()
                return step

    def _connect(self, step: int) -> PictureConnection:
        return PictureConnection(
            self._endpoint,
            msgspec.structs.replace(self._hello, resumed_step=step),
            longest_answer=self._longest_answer,
            meter=self._meter,
        )

    def _disconnect(self) -> None:
        # Forgotten first, so that it cannot be used again if closing is interrupted.
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Run:
    """One picture on its way: what was asked for on this connection, and what has come."""

    def __init__(self, order: PictureOrder, state: SolverState) -> None:
        self.order = order
        self.state = state
        self.step = 0
        self.reference = order.trajectory.first_reference(state)
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
            payload = b"".join(encode(tensor, order.form) for tensor in order.conditioning)
            connection.begin(order.settings, payload, order.form, tensors=len(order.conditioning))
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

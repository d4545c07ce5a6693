"""The denoiser as the device sees it: one that never forgets.

The device is the source of truth. It goes every step of the latents itself; when the connection is
lost, the server restarts, or another replica answers, it reconnects with backoff, sends the
picture's conditioning and what the step that it has reached needs, and goes on with the same
picture.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator

import msgspec

from edge_runtime.endpoint import Endpoint
from edge_runtime.outage import Outage
from edge_runtime.pictures.connection import PictureConnection
from edge_runtime.pictures.runs import DenoisingStep, PictureOrder, PictureRun
from edge_runtime.pictures.whole_run import WholeRun
from edge_runtime.retry import RetryPolicy
from edge_runtime.stats import Meter
from lambda_split.errors import (
    CapacityRefused,
    LambdaSplitError,
    LinkError,
    ServerError,
    UsageError,
)
from lambda_split.wire.messages import PictureHello

__all__ = ["ReplayingDenoiser"]

_logger = logging.getLogger(__name__)


class ReplayingDenoiser:
    """Asks for steps over as many connections as it takes.

    Args:
        endpoint: Where the trunk is.
        hello: What this device needs, for all its pictures.
        meter: Counts bytes and time.
        longest_answer: Bytes of the longest payload that a step may bring back.
        retry: How hard to try when the connection is lost.
        runs: Makes a picture's run of an order; the trunk is the whole denoiser by default.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        hello: PictureHello,
        meter: Meter,
        *,
        longest_answer: int,
        retry: RetryPolicy,
        runs: Callable[[PictureOrder], PictureRun] = WholeRun,
    ) -> None:
        self._endpoint = endpoint
        self._hello = hello
        self._meter = meter
        self._longest_answer = longest_answer
        self._outage = Outage(retry)
        self._connection: PictureConnection | None = None
        self._runs = runs
        self._running: PictureRun | None = None  # the picture that the connection is about
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

    def wait_while(self, wanted: Callable[[], bool]) -> None:
        """As :meth:`Outage.wait_while`."""
        self._outage.wait_while(wanted)

    def run(self, order: PictureOrder) -> Generator[DenoisingStep]:
        """Take all steps of a picture.

        Yields:
            Each step, in order.

        Raises:
            RequestError: the server cannot make this picture.
            ConnectionLost: given up after :attr:`RetryPolicy.give_up_after_s`.
            Refused: a server that answers now does not serve this bundle.
            ProtocolError: the server broke the protocol.
            RemoteError: the server objected in a way that this version does not know.
            UsageError: the session was closed, or another picture was begun.
            GraphInvalid: a block of the denoiser that is the device's fails.
        """
        self._check_open()
        self._leave()  # answers of a picture that was left may be on their way
        run = self._running = self._runs(order)
        try:
            while run.step < order.trajectory.solver.steps:
                yield self._next(run)
        finally:
            if self._running is run:  # otherwise what is in flight is another picture's
                self._leave()
                self._outage.forget()

    def _next(self, run: PictureRun) -> DenoisingStep:
        self._check_open()
        if self._running is not run:
            raise UsageError("another picture was begun on this session: it makes one at a time")
        self._outage.await_progress()
        while True:
            try:
                connection = self._connection
                if connection is None:
                    self._outage.pause()
                    self._check_open()  # another thread may have closed it meanwhile
                    connection = self._connection = self._connect(run.step)
                    self._check_open()
                    self._meter.reconnects += 1
                    run.lost()
                step = run.advance(connection)
            except (LinkError, ServerError, CapacityRefused) as error:
                self._outage.met(error)
                self._disconnect()
                self._outage.give_up(error)
            except LambdaSplitError:
                self._disconnect()
                self._check_open()  # another thread may have closed it meanwhile
                raise
            else:
                self._outage.over()
                return step

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("this session was closed: open another one")

    def _connect(self, step: int) -> PictureConnection:
        return PictureConnection(
            self._endpoint,
            msgspec.structs.replace(self._hello, resumed_step=step),
            longest_answer=self._longest_answer,
            meter=self._meter,
        )

    def _leave(self) -> None:
        """Disconnect where answers are in flight that nobody wants any more."""
        connection = self._connection  # looked at once: another thread may close it meanwhile
        if connection is not None and connection.in_flight:
            self._disconnect()

    def _disconnect(self) -> None:
        # Forgotten first, so that it cannot be used again if closing is interrupted.
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

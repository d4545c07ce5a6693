"""One connection: handshake, forwards in, replies out, and how it ends.

A connection is one session. Its reader hands each forward to the scheduler at once and its writer
sends the replies in the order of the forwards, so that several are under way at a time. The reader
stops while ``max_in_flight`` forwards wait, which in turn stops the device.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from cloud.conversation import AnyHello, ModelKind, Terms
from cloud.grants import Guest
from cloud.logs import fields
from cloud.metrics import Metrics
from cloud.scheduler import Reply, Scheduler
from cloud.sessions import OpenSession, open_session
from cloud.status import ServerStatus
from lambda_split import __version__
from lambda_split.errors import (
    HandshakeTimeout,
    InternalError,
    ProtocolError,
    Refused,
    RequestError,
    ServerDraining,
    SessionEvicted,
    TokenRevoked,
    UnexpectedMessage,
    WireError,
)
from lambda_split.wire.messages import Bye, ErrorMessage, Welcome, serialize_message

__all__ = ["Connection", "Limits", "Service"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one connection may ask of the server.

    Attributes:
        max_chunk_tokens: The most positions of one frame.
        max_in_flight: The most forwards of a session that wait for their replies.
        max_connections: The most connections at a time, without those that have no session yet.
        max_newcomers: The most connections that have no session yet; see :mod:`cloud.newcomers`.
        newcomers_per_s: Connections that are accepted in a second.
        handshake_s: Seconds for TLS, then for the upgrade request, then for the hello, each to be
            complete.
        ping_s: Seconds between pings, and for the answer to one.
        linger_s: Seconds for which sessions may go on when the server is told to stop.
        drain_s: Seconds that they have after that for what is under way.
        goodbye_s: Seconds to deliver a last message and to close.
    """

    max_chunk_tokens: int = 512
    max_in_flight: int = 8
    max_connections: int = 48
    max_newcomers: int = 128
    newcomers_per_s: float = 200.0
    handshake_s: int = 10
    ping_s: float = 20.0
    linger_s: float = 0.0
    drain_s: float = 3.0
    goodbye_s: float = 2.0


@dataclass(frozen=True)
class Service:
    """What all connections of a server share."""

    model: ModelKind
    scheduler: Scheduler
    limits: Limits
    status: ServerStatus
    metrics: Metrics
    draining: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Rejected:
    sequence: int
    error: RequestError


@dataclass(frozen=True, slots=True)
class _Running:
    sequence: int
    asked: Any  # between the conversation and its kind of model
    reply: asyncio.Future[Reply]


class Connection:
    """One device's connection after the upgrade.

    Args:
        socket: Open.
        service: What is served.
        guest: What the gate knows of it.
    """

    def __init__(self, socket: ServerConnection, service: Service, guest: Guest) -> None:
        self._socket = socket
        self._service = service
        self._guest = guest
        self._protocol = service.model.conversation()
        self._id = secrets.token_hex(8)
        self._opened_at: float | None = None
        self._slots = asyncio.Semaphore(service.limits.max_in_flight)
        self._answers: asyncio.Queue[_Rejected | _Running | None] = asyncio.Queue()

    async def run(self) -> None:
        """Serve the session until either side ends it; raises nothing."""
        try:
            await self._session()
        except ConnectionClosed:
            _logger.info("the device is gone", extra=fields(session=self._id))
        except WireError as error:
            if self._opened_at is None:
                self._service.metrics.refused(reason=error.code)
            told = fields(session=self._id, code=error.code)
            _logger.info("ended: %s", error, extra=told)
            await self._end(error)
        except Exception:
            incident = secrets.token_hex(8)
            told = fields(session=self._id, incident=incident)
            _logger.exception("incident %s: a connection failed", incident, extra=told)
            await self._end(InternalError(incident))

    async def _session(self) -> None:
        hello = await self._receive_hello()
        if isinstance(hello, Bye):
            return
        terms = self._protocol.agree(hello)
        with self._guest.session():
            await self._serve(terms, hello.agent)

    async def _serve(self, terms: Terms, agent: str) -> None:
        """A session from its place in the engine to its end."""
        scheduler = self._service.scheduler
        session = await open_session(scheduler, self._protocol.make_room)
        try:
            self._guest.settle()
            welcome = Welcome(
                session=self._id,
                codec=terms.codec,
                max_positions=terms.positions,
                max_chunk_tokens=self._service.limits.max_chunk_tokens,
                max_in_flight=self._service.limits.max_in_flight,
                agent=f"lambda-split/{__version__}",
            )
            self._count_opening(terms)
            told = fields(
                session=self._id,
                token=self._guest.name,
                **terms.facts,
                positions=terms.positions,
                replayed=terms.replayed,
                codec=terms.codec,
                agent=agent,
            )
            _logger.info("session open", extra=told)
            # Only from here on: what has not been let in cannot make the server hold whole chunks.
            self._socket.protocol.max_message_size = terms.longest_message
            await self._socket.send(self._protocol.open(welcome))
            await self._exchange(session)
        finally:
            scheduler.close(session.cache)
            self._count_closing()

    def _count_opening(self, terms: Terms) -> None:
        self._opened_at = time.monotonic()
        self._service.metrics.session_opened()
        if terms.replayed:
            self._service.metrics.replayed(positions=terms.replayed)

    def _count_closing(self) -> None:
        if self._opened_at is None:
            return
        seconds = time.monotonic() - self._opened_at
        self._service.metrics.session_closed(seconds=seconds)
        told = fields(session=self._id, seconds=round(seconds, 3))
        _logger.info("session closed", extra=told)

    async def _receive_hello(self) -> AnyHello | Bye:
        """The device's hello, or its bye."""
        seconds = self._service.limits.handshake_s
        received = asyncio.ensure_future(self._socket.recv())
        leaving = asyncio.ensure_future(self._service.status.leaving.wait())
        try:
            await asyncio.wait(
                {received, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if self._service.status.leaving.is_set():
                raise ServerDraining
            if not received.done():
                raise HandshakeTimeout(seconds)
            message = received.result()
        finally:
            await _cancel(received, leaving)
        if isinstance(message, bytes):
            raise UnexpectedMessage("a binary frame", self._protocol.state.value)
        return self._protocol.receive_text(message)

    async def _exchange(self, session: OpenSession) -> None:
        """Forwards and replies, until something ends it."""
        reader = asyncio.ensure_future(self._read(session))
        writer = asyncio.ensure_future(self._write())
        # The reader does not see a device go away while it waits for a free slot.
        gone = asyncio.ensure_future(self._socket.wait_closed())
        draining = asyncio.ensure_future(self._service.draining.wait())
        evicted = asyncio.ensure_future(session.evicted.wait())
        revoked = asyncio.ensure_future(self._guest.revoked.wait())
        tasks = (reader, writer, gone, draining, evicted, revoked)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in (reader, writer):
                if task.done():
                    return task.result()
            if revoked.done():
                raise TokenRevoked
            if evicted.done():
                raise SessionEvicted
            if draining.done():
                await self._finish_answers(reader, writer, gone)
        finally:
            await _cancel(*tasks)
            while not self._answers.empty():
                answer = self._answers.get_nowait()
                if isinstance(answer, _Running):
                    answer.reply.cancel()

    async def _finish_answers(
        self, reader: asyncio.Future[None], writer: asyncio.Future[None], gone: asyncio.Future[None]
    ) -> None:
        """Send what is under way, then raise :class:`ServerDraining`."""
        await _cancel(reader)
        self._answers.put_nowait(None)
        await asyncio.wait(
            {writer, gone},
            timeout=self._service.limits.drain_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if writer.done():
            writer.result()  # what went wrong meanwhile is what the device is told
        raise ServerDraining

    async def _read(self, session: OpenSession) -> None:
        """Hand forwards to the scheduler; returns when the device says bye."""
        while True:
            await self._slots.acquire()
            message = await self._socket.recv()
            self._service.metrics.received(nbytes=len(message))
            if isinstance(message, str):
                self._protocol.receive_text(message)  # nothing but a bye passes here
                return
            try:
                asked = self._protocol.receive_binary(message)
            except RequestError as error:
                self._answers.put_nowait(_Rejected(self._protocol.last_sequence, error))
            else:
                request = self._protocol.request(asked)
                reply = self._service.scheduler.submit(session.cache, request)
                self._answers.put_nowait(_Running(self._protocol.last_sequence, asked, reply))

    async def _write(self) -> None:
        """Answer forwards in their order; returns after the last one where None ends the queue."""
        while (answer := await self._answers.get()) is not None:
            message = await self._answer(answer)
            await self._socket.send(message)
            self._service.metrics.sent(nbytes=len(message))
            self._slots.release()

    async def _answer(self, answer: _Rejected | _Running) -> str | bytes:
        if isinstance(answer, _Rejected):
            return self._reject(answer.sequence, answer.error)
        try:
            reply = await answer.reply
        except RequestError as error:
            return self._reject(answer.sequence, error)
        return self._protocol.reply(answer.asked, reply.encoded, reply.micros)

    def _reject(self, sequence: int, error: RequestError) -> str:
        self._service.metrics.rejected(code=error.code)
        told = fields(session=self._id, sequence=sequence, code=error.code)
        _logger.info("forward rejected", extra=told)
        return self._protocol.reject(sequence, error)

    async def _end(self, error: WireError) -> None:
        """Tell the device why, and close; cut it off where it does not listen."""
        message = serialize_message(ErrorMessage.from_error(error))
        try:
            async with asyncio.timeout(self._service.limits.goodbye_s):
                await self._socket.send(message)
                await self._socket.close(close_code(error), error.code)
        except ConnectionClosed:
            pass
        except TimeoutError:
            self._socket.transport.abort()


def close_code(error: WireError) -> int:
    """The WebSocket close code (RFC 6455, section 7.4.1) that goes with an error."""
    if isinstance(error, ProtocolError):
        return 1002
    if isinstance(error, Refused):
        return 1008
    return 1001 if isinstance(error, ServerDraining) else 1011


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

"""The gateway: where devices connect, in front of the replicas.

To a device it is a plain server: the same gate, the same protocol. Behind the gate it asks for a
place and passes messages on. It sees what crosses the wire, hidden states, and nothing else. Any
number of gateways may stand before the same replicas; none knows of the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator
from typing import Protocol

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import Server, ServerConnection
from websockets.exceptions import ConnectionClosed

from cloud.connection import Limits, close_code
from cloud.gate import Gate
from cloud.grants import Guest
from cloud.listener import url_of
from cloud.newcomers import Newcomers
from cloud.replicas.metrics import GatewayMetrics
from cloud.replicas.relay import Ended, Message, Traffic, connect, first_answer, relay
from cloud.replicas.replica import Place
from cloud.server import listen
from cloud.status import ServerStatus
from cloud.tls import ServerTls
from cloud.tokens import TokenStore
from lambda_split.counting import counted
from lambda_split.errors import (
    CapacityRefused,
    HandshakeTimeout,
    InternalError,
    ServerDraining,
    TokenRevoked,
    UnexpectedMessage,
    WireError,
)
from lambda_split.wire.messages import Bye, ErrorMessage, serialize_message
from lambda_split.wire.session import ServerSession

__all__ = ["Gateway", "Places", "serve_gateway"]

_logger = logging.getLogger(__name__)
_REPLICAS_TRIED = 4  # for one session: where so many have refused, the cluster is full
_MOVING = 1001  # the close code that goes with server-draining


class Places(Protocol):
    """Where sessions may go."""

    async def place(self, avoid: tuple[str, ...]) -> Place:
        """The best replica for a session.

        Args:
            avoid: Replicas that have refused it: only where there is no other.

        Raises:
            CapacityRefused: no replica answers.
        """
        ...


class Gateway:
    """All sessions of one gateway.

    Args:
        places: Where they go.
        limits: What a connection may ask.
        metrics: Counted in here.
    """

    def __init__(self, places: Places, limits: Limits, metrics: GatewayMetrics) -> None:
        self._places = places
        self._limits = limits
        self._metrics = metrics
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """End all sessions: their devices go on through another gateway, or this one's successor.

        Nothing is waited for. What is under way is computed again where they go on.
        """
        self._draining.set()

    async def run(self, device: ServerConnection, guest: Guest) -> None:
        """Serve a device after the upgrade, until either side ends; raises nothing.

        Args:
            device: Its connection.
            guest: What the gate knows of it.
        """
        name = secrets.token_hex(8)
        session = asyncio.ensure_future(self._session(device, guest, name))
        draining = asyncio.ensure_future(self._draining.wait())
        revoked = asyncio.ensure_future(guest.revoked.wait())
        tasks = (session, draining, revoked)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if session.done():
                session.result()
            else:
                await self._end(device, TokenRevoked() if revoked.done() else ServerDraining())
        except ConnectionClosed:
            _logger.info("session %s: the device is gone", name)
        except WireError as error:
            # The sentence may quote the device: as a literal it stays on its line.
            _logger.info("session %s: %s: %r", name, error.code, str(error))
            await self._end(device, error)
        except Exception:
            incident = secrets.token_hex(8)
            _logger.exception("session %s: incident %s", name, incident)
            await self._end(device, InternalError(incident))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _session(self, device: ServerConnection, guest: Guest, name: str) -> None:
        hello = await self._receive_hello(device)
        if hello is None:
            return
        with contextlib.ExitStack() as seat:
            try:
                seat.enter_context(guest.session())
                place, replica, answer = await self._open(hello)
            except WireError as error:
                self._metrics.refused(reason=error.code)
                raise
            guest.settle()
            _logger.info("session %s: of %s, on replica %s", name, guest.name, place.replica)
            ended = await self._pass_on(device, replica, answer, place.max_message_bytes)
        self._conclude(name, replica, ended)

    async def _pass_on(
        self, device: ServerConnection, replica: ClientConnection, answer: Message, longest: int
    ) -> Ended:
        traffic = Traffic()
        self._metrics.session_opened()
        began = time.monotonic()
        try:
            # Only from here on: what has not been let in cannot make the gateway hold whole chunks.
            device.protocol.max_message_size = longest
            await device.send(answer)
            return await relay(device, replica, traffic, goodbye_s=self._limits.goodbye_s)
        finally:
            self._metrics.session_closed(seconds=time.monotonic() - began)
            self._metrics.received(nbytes=traffic.received)
            self._metrics.sent(nbytes=traffic.sent)
            replica.transport.abort()  # closed in order by now, or not worth waiting for

    def _conclude(self, name: str, replica: ClientConnection, ended: Ended) -> None:
        """Say how a session ended.

        Raises:
            ServerDraining: its replica was lost; the device does not know yet.
        """
        _logger.info("session %s: ended by the %s", name, ended.value)
        if ended is Ended.LOST:
            self._metrics.moved(reason="lost")
            raise ServerDraining
        if ended is Ended.REPLICA and replica.close_code == _MOVING:
            self._metrics.moved(reason="drained")

    async def _receive_hello(self, device: ServerConnection) -> Message | None:
        """The device's hello as it came, or None where it said bye instead.

        Whoever says nothing takes no place.
        """
        protocol = ServerSession()
        seconds = self._limits.handshake_s
        try:
            message = await asyncio.wait_for(device.recv(), seconds)
        except TimeoutError as error:
            raise HandshakeTimeout(seconds) from error
        if isinstance(message, bytes):
            raise UnexpectedMessage("a binary frame", protocol.state.value)
        return None if isinstance(protocol.receive_text(message), Bye) else message

    async def _open(self, hello: Message) -> tuple[Place, ClientConnection, Message]:
        """Open the session on the best replica that takes it.

        Raises:
            CapacityRefused: none has room.
            ServerDraining: those asked are all on their way out.
        """
        refusal: CapacityRefused | ServerDraining | None = None
        tried: tuple[str, ...] = ()
        while len(tried) < _REPLICAS_TRIED:
            place = await self._places.place(tried)
            if refusal is not None and place.replica in tried:  # there are no others
                break
            try:
                replica, answer = await self._open_at(place, hello)
            except (CapacityRefused, ServerDraining) as error:
                _logger.info("replica %s: %s", place.replica, error.code)
                refusal = error
                tried = (*tried, place.replica)
            else:
                return place, replica, answer
        raise refusal or ServerDraining

    async def _open_at(self, place: Place, hello: Message) -> tuple[ClientConnection, Message]:
        seconds = self._limits.handshake_s
        replica = await connect(
            place,
            timeout_s=seconds,
            close_timeout_s=self._limits.goodbye_s,
            ping_s=self._limits.ping_s,
        )
        try:
            return replica, await asyncio.wait_for(first_answer(replica, hello), seconds)
        except TimeoutError as error:
            replica.transport.abort()
            raise ServerDraining from error
        except BaseException:
            replica.transport.abort()
            raise

    async def _end(self, device: ServerConnection, error: WireError) -> None:
        """Tell the device why, and close; cut it off where it does not listen."""
        message = serialize_message(ErrorMessage.from_error(error))
        try:
            async with asyncio.timeout(self._limits.goodbye_s):
                await device.send(message)
                await device.close(close_code(error), error.code)
        except ConnectionClosed:
            pass
        except TimeoutError:
            device.transport.abort()


@contextlib.asynccontextmanager
async def serve_gateway(
    places: Places,
    listener: socket.socket,
    *,
    limits: Limits | None = None,
    tokens: TokenStore | None = None,
    tls: ServerTls | None = None,
    status: ServerStatus | None = None,
    metrics: GatewayMetrics | None = None,
) -> AsyncIterator[str]:
    """Run a gateway inside an ``async with`` block.

    Leaving the block stops accepting and sends all devices away; they come back elsewhere.

    Args:
        places: Where sessions go.
        listener: A bound socket; taken over, and closed at the end.
        limits: What one connection may ask; the defaults where None. Where a replica allows less,
            that holds.
        tokens: As for :func:`cloud.server.serve`. A token's bound on sessions holds for each
            gateway.
        tls: As there.
        status: As there.
        metrics: Counted in here.

    Yields:
        The URL to connect to.
    """
    limits, metrics = limits or Limits(), metrics or GatewayMetrics()
    status = status or ServerStatus()
    newcomers = Newcomers(limits.max_newcomers)
    gate = Gate(
        newcomers,
        max_connections=limits.max_connections,
        tokens=tokens,
        status=status,
        metrics=metrics,
    )
    gateway = Gateway(places, limits, metrics)
    url = url_of(listener, tls=tls is not None)

    async def handle(device: ServerConnection) -> None:
        with gate.admit(device) as guest:
            await gateway.run(device, guest)

    server = await listen(handle, listener, gate.check, newcomers, limits=limits, tls=tls)
    status.started(lambda: True)
    try:
        with gate.watching_tokens():
            yield url
    finally:
        status.leaving.set()
        await _stop(server, gateway, limits)


async def _stop(server: Server, gateway: Gateway, limits: Limits) -> None:
    _logger.info("stopping: %s open", counted(len(server.connections), "session"))
    server.close(close_connections=False)
    gateway.drain()
    try:
        async with asyncio.timeout(2 * limits.goodbye_s):
            await server.wait_closed()
    except TimeoutError:
        _logger.warning("stopping: not all connections closed in time")

"""One session through a gateway: the device's WebSocket on one side, a replica's on the other.

Messages are passed on as they are. Of all of them only a refusal in answer to the hello is read.
Nobody's messages pile up here: each side is read only as fast as the other takes what it is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, WebSocketException

from cloud.replicas.replica import Place
from lambda_split.errors import CapacityRefused, ProtocolError, ServerDraining
from lambda_split.wire.messages import ErrorMessage, parse_message

__all__ = ["Ended", "Message", "Traffic", "connect", "first_answer", "relay"]

Message: TypeAlias = str | bytes
_NEVER_SENT = frozenset({1005, 1006})  # RFC 6455, 7.4.1: stand for no code and no closing


class Ended(enum.Enum):
    """Which side ended a session."""

    DEVICE = "device"
    REPLICA = "replica"  # in order, having said why
    LOST = "lost"  # the replica died, or the way to it


@dataclass
class Traffic:
    """Bytes of messages that were passed on."""

    received: int = 0
    sent: int = 0

    def count_received(self, nbytes: int) -> None:
        """From a device."""
        self.received += nbytes

    def count_sent(self, nbytes: int) -> None:
        """To a device."""
        self.sent += nbytes


async def connect(
    place: Place, *, timeout_s: float, close_timeout_s: float, ping_s: float
) -> ClientConnection:
    """Open the WebSocket of a replica.

    Raises:
        ServerDraining: the replica is not there any more.
    """
    # The library's log of details has frames and headers in it: hidden states and tokens.
    library_logger = logging.getLogger(f"{__name__}.websockets")
    library_logger.setLevel(logging.WARNING)
    try:
        return await connect_websocket(
            place.url,
            additional_headers={"Authorization": f"Bearer {place.token}"},
            compression=None,
            max_size=place.max_message_bytes,
            max_queue=2,
            open_timeout=timeout_s,
            close_timeout=close_timeout_s,
            ping_interval=ping_s,
            ping_timeout=ping_s,
            proxy=None,
            user_agent_header=None,
            logger=library_logger,
        )
    except (OSError, TimeoutError, WebSocketException) as error:
        raise ServerDraining from error


async def first_answer(replica: Connection, hello: Message) -> Message:
    """Pass the device's first message on and wait for what the replica says to it.

    Raises:
        CapacityRefused: this replica has no room: another one may have.
        ServerDraining: the replica is going, or gone.
    """
    try:
        await replica.send(hello)
        answer = await replica.recv()
    except ConnectionClosed as error:
        raise ServerDraining from error
    with contextlib.suppress(ProtocolError):  # the device will say so
        message = parse_message(answer)
        if isinstance(message, ErrorMessage):
            refusal = message.to_error()
            if isinstance(refusal, CapacityRefused | ServerDraining):
                raise refusal
    return answer


async def relay(
    device: ServerConnection, replica: ClientConnection, traffic: Traffic, *, goodbye_s: float
) -> Ended:
    """Pass messages on in both directions until either side ends, then end the other.

    Args:
        device: Its hello has been answered.
        replica: Its answer has been passed on.
        traffic: Counted in here.
        goodbye_s: Seconds for a replica's last words to reach the device.

    Returns:
        Who ended it. Where the replica was lost, the device is still connected and was told
        nothing.
    """
    up = asyncio.ensure_future(_pump(device, replica, traffic.count_received))
    down = asyncio.ensure_future(_pump(replica, device, traffic.count_sent))
    try:
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        if not down.done() and up.result() is replica:
            # It takes no more, but what it said last, and why, may not have been passed on yet.
            await asyncio.wait({down}, timeout=goodbye_s)
        ended: Connection = down.result() if down.done() else up.result()
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
    if ended is device:
        await _close_alike(replica, device)
        return Ended.DEVICE
    if replica.protocol.close_rcvd is None:
        return Ended.LOST
    await _close_alike(device, replica)
    return Ended.REPLICA


async def _pump(source: Connection, target: Connection, count: Callable[[int], None]) -> Connection:
    """Pass on what one side says; returns the side that ended."""
    while True:
        try:
            message = await source.recv()
        except ConnectionClosed:
            return source
        count(len(message))
        try:
            await target.send(message)
        except ConnectionClosed:
            return target


async def _close_alike(other: Connection, ended: Connection) -> None:
    """Close one side for the reason for which the other was closed."""
    close = ended.protocol.close_rcvd
    if close is None or close.code in _NEVER_SENT:
        await other.close()
    else:
        await other.close(close.code, close.reason)

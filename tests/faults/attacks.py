"""Hostile clients. Each attack is a coroutine that one of many clients runs again and again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lambda_split.wire.messages import MAX_MESSAGE_BYTES
from tests.faults.ground import HOSTILE_TOKEN
from tests.faults.raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawDevice,
    frame,
    upgrade,
)

__all__ = ["ATTACKS", "Attack", "Victim"]


@dataclass(frozen=True)
class Victim:
    """Whom it is about: the server's address, a hello that it accepts, and its width."""

    url: str
    hello: str
    width: int

    async def connect(self) -> RawDevice:
        return await RawDevice.connect(self.url, self.hello)

    async def session(self) -> tuple[RawDevice, int]:
        """A session, and the most positions of one frame."""
        device = await self.connect()
        try:
            welcome = await device.shake_hands(HOSTILE_TOKEN)
        except BaseException:
            device.abort()
            raise
        return device, welcome.max_chunk_tokens


Attack = Callable[[Victim, random.Random, int], Awaitable[None]]


async def slow_reader(victim: Victim, rng: random.Random, number: int) -> None:
    """Asks for the longest replies, without a pause, and reads none of them."""
    device, limit = await victim.session()
    tokens = min(limit, 128)
    try:
        while True:
            await device.write(device.forward(tokens, victim.width, reply=tokens))
    finally:
        device.abort()


async def mute(victim: Victim, rng: random.Random, number: int) -> None:
    """Connects and never says hello: as bare TCP, with half a request, or upgraded."""
    device = await victim.connect()
    try:
        if number % 3 == 1:
            await device.write(upgrade(("127.0.0.1", 1), HOSTILE_TOKEN)[:40])
        elif number % 3 == 2:
            try:
                await device.upgrade(HOSTILE_TOKEN)
            except ConnectionRefusedError:  # told to try again later; asking is not what this does
                await asyncio.sleep(5.0)
                return
        while await device.reader.read(1024):
            pass
    finally:
        device.abort()


async def drip(victim: Victim, rng: random.Random, number: int) -> None:
    """Sends one byte a second: of the request, of the hello, or of a forward."""
    device = await victim.connect()
    try:
        if number % 3 == 0:
            data = upgrade(("127.0.0.1", 1), HOSTILE_TOKEN)
        elif number % 3 == 1:
            await device.upgrade(HOSTILE_TOKEN)
            data = frame(TEXT, victim.hello.encode())
        else:
            await device.shake_hands(HOSTILE_TOKEN)
            data = device.forward(4, victim.width, reply=4)
        for byte in data:
            await device.write(bytes([byte]))
            await asyncio.sleep(1.0)
    finally:
        device.abort()


async def flood(victim: Victim, rng: random.Random, number: int) -> None:
    """Sends valid forwards as fast as they are taken; every other client reads the replies."""
    device, _ = await victim.session()
    drain = asyncio.create_task(_discard(device)) if number % 2 else None
    try:
        while True:
            tokens = rng.choice((1, 1, 1, 16, 64))
            await device.write(device.forward(tokens, victim.width, reply=rng.randint(0, tokens)))
    finally:
        if drain is not None:
            drain.cancel()
        device.abort()


async def garbage(victim: Victim, rng: random.Random, number: int) -> None:
    """Sends what means nothing, at every layer, and comes back at once."""
    device = await victim.connect()
    drain: asyncio.Task[None] | None = None
    try:
        kind = rng.randrange(6)
        if kind == 0:
            await device.write(rng.randbytes(rng.randint(1, 20_000)))
        elif kind == 1:
            await device.write(b"POST / HTTP/1.1\r\n" + b"X: y\r\n" * rng.randint(1, 300) + b"\r\n")
        elif kind == 2:
            await device.upgrade(HOSTILE_TOKEN)
            await device.write(rng.randbytes(rng.randint(1, 5000)))
        elif kind == 3:
            await device.upgrade(HOSTILE_TOKEN)
            size = rng.choice((0, 10, 1000, MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES + 1))
            await device.write(frame(rng.choice((TEXT, BINARY)), rng.randbytes(size)))
        else:
            await device.shake_hands(HOSTILE_TOKEN)
            opcode = rng.choice((TEXT, BINARY, CLOSE, CONTINUATION, 0x3, 0xB))
            await device.write(frame(opcode, rng.randbytes(rng.randint(0, 125))))
        drain = asyncio.create_task(_discard(device))
        await asyncio.wait({drain}, timeout=0.2)
    finally:
        if drain is not None:
            drain.cancel()
        device.abort()


async def pings(victim: Victim, rng: random.Random, number: int) -> None:
    """Sends pings without end and reads no pong; every other client sends pongs unasked."""
    device, _ = await victim.session()
    batch = frame(PONG if number % 2 else PING, b"\0" * 125) * 64
    try:
        while True:
            await device.write(batch)
    finally:
        device.abort()


async def fragments(victim: Victim, rng: random.Random, number: int) -> None:
    """Begins a message and goes on with empty pieces without end."""
    device, _ = await victim.session()
    drain = asyncio.create_task(_discard(device))
    try:
        await device.write(frame(BINARY, b"", fin=False))
        while not drain.done():
            await device.write(frame(CONTINUATION, b"", fin=False) * 64)
    finally:
        drain.cancel()
        device.abort()


async def churn(victim: Victim, rng: random.Random, number: int) -> None:
    """Opens sessions and leaves them at once: with a bye, without, or in the middle of a frame."""
    device, _ = await victim.session()
    try:
        data = device.forward(16, victim.width, reply=16)
        match rng.randrange(3):
            case 0:
                await device.write(frame(TEXT, device.session.close().encode()))
                await _discard(device)
            case 1:
                await device.write(data)
            case _:
                await device.write(data[: rng.randrange(len(data))])
    finally:
        device.abort()


async def _discard(device: RawDevice) -> None:
    with contextlib.suppress(OSError):
        while await device.reader.read(65536):
            pass


ATTACKS: dict[str, Attack] = {
    "slow-reader": slow_reader,
    "mute": mute,
    "drip": drip,
    "flood": flood,
    "garbage": garbage,
    "pings": pings,
    "fragments": fragments,
    "churn": churn,
}

"""A device that costs next to nothing: the contract's state machine on a socket, no model.

It sends random hidden states, so that what is measured is the server and not the machine's other
work.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import AsyncIterator

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from lambda_split.partition import open_checkpoint
from lambda_split.wire.codecs import Encoded, encode
from lambda_split.wire.frames import PROTOCOL_VERSION
from lambda_split.wire.messages import Hello, Welcome
from lambda_split.wire.session import DeviceSession, Rejected

__all__ = ["LightDevice", "hello_for"]


def hello_for(folder: pathlib.Path, *, max_positions: int, codec: str = "fp16") -> Hello:
    """The hello of a device that leaves all layers of a checkpoint to the trunk."""
    checkpoint = open_checkpoint(str(folder))
    return Hello(
        protocol=PROTOCOL_VERSION,
        fingerprint=checkpoint.fingerprint,
        witnesses={},
        head_layers=0,
        tail_layers=0,
        hidden_size=checkpoint.hidden_size,
        codecs=(codec,),
        max_positions=max_positions,
        agent="benchmark",
    )


class LightDevice:
    """One session on one connection.

    Attributes:
        length: Positions that the trunk holds, or will once everything sent is answered.
        max_chunk_tokens: The most positions of one forward.
        max_in_flight: The most forwards that may wait for their replies.
    """

    def __init__(self, socket: ClientConnection, hello: Hello) -> None:
        self._socket = socket
        self._hello = hello
        self._session = DeviceSession(hello)
        self._payloads: dict[int, Encoded] = {}
        self._random = np.random.default_rng(0)
        self.length = 0
        self.max_chunk_tokens = 0
        self.max_in_flight = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, url: str, hello: Hello) -> AsyncIterator[LightDevice]:
        """Connect and shake hands."""
        async with connect(url, compression=None, max_size=None) as socket:
            device = cls(socket, hello)
            await socket.send(device._session.hello())
            message = await socket.recv()
            assert isinstance(message, str)
            welcome = device._session.receive_text(message)
            assert isinstance(welcome, Welcome)
            device.max_chunk_tokens = welcome.max_chunk_tokens
            device.max_in_flight = welcome.max_in_flight
            yield device

    async def prompt(self, tokens: int) -> None:
        """Send that many positions in as few forwards as the server takes, and get all back."""
        sizes = [self.max_chunk_tokens] * (tokens // self.max_chunk_tokens)
        if tokens % self.max_chunk_tokens:
            sizes.append(tokens % self.max_chunk_tokens)
        for size in set(sizes):
            self._payload(size)  # made before the clock of others is disturbed
        for size in sizes:
            if self._session.in_flight == self.max_in_flight:
                await self._receive()
            await self._send(size)
        while self._session.in_flight:
            await self._receive()

    async def token(self) -> None:
        """One more position, there and back."""
        await self._send(1)
        await self._receive()

    def cut(self, length: int) -> None:
        """The next forward starts at that position."""
        self.length = length

    async def _send(self, tokens: int) -> None:
        message = self._session.forward(self.length, tokens, self._payload(tokens), reply=tokens)
        self.length += tokens
        await self._socket.send(message)

    async def _receive(self) -> None:
        message = await self._socket.recv()
        if isinstance(message, str):
            event = self._session.receive_text(message)
            raise event.error if isinstance(event, Rejected) else ConnectionError(message)
        self._session.receive_binary(message)

    def _payload(self, tokens: int) -> Encoded:
        if tokens not in self._payloads:
            shape = (tokens, self._hello.hidden_size)
            hidden = self._random.normal(size=shape).astype(np.float32)
            self._payloads[tokens] = encode(hidden, self._session.codec)
        return self._payloads[tokens]

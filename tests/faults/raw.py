"""A WebSocket client by hand, on a bare socket: it can do what no library would let it."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
import urllib.parse

from lambda_split.wire.codecs import Encoded
from lambda_split.wire.messages import Hello, Welcome, parse_message
from lambda_split.wire.session import DeviceSession

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "RawConnection",
    "RawDevice",
    "address_of",
    "dial",
    "frame",
    "upgrade",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def upgrade(address: tuple[str, int], token: str | None = None) -> bytes:
    """The HTTP request that asks for a WebSocket."""
    authorization = "" if token is None else f"Authorization: Bearer {token}\r\n"
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET / HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nUpgrade: websocket\r\n"
        f"{authorization}Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A client's WebSocket frame (RFC 6455, section 5.2), masked with zeros: as it is."""
    length = len(payload)
    head = bytes([(0x80 if fin else 0) | opcode])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 1 << 16:
        head += bytes([0x80 | 126]) + struct.pack(">H", length)
    else:
        head += bytes([0x80 | 127]) + struct.pack(">Q", length)
    return head + bytes(4) + payload


async def dial(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a TCP connection."""
    plain = socket.socket()
    plain.setblocking(False)
    # Small, so that what is not read does not pile up in the system's buffers.
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    try:
        await asyncio.get_running_loop().sock_connect(plain, address_of(url))
        return await asyncio.open_connection(sock=plain, limit=4096)
    except BaseException:
        plain.close()
        raise


class RawConnection:
    """A connection whose every byte the caller decides.

    Attributes:
        reader: What the server sent; it holds little: who does not read it stops the server.
        writer: What goes to the server.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def upgrade(self, token: str | None = None) -> None:
        """Become a WebSocket."""
        address = self.writer.get_extra_info("peername")
        await self.write(upgrade(address, token))
        answer = await self.reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 101"):
            raise ConnectionRefusedError(answer[:40])

    async def write(self, data: bytes) -> None:
        """Send, as slowly as the server takes it."""
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self) -> tuple[int, bytes]:
        """The server's next frame: its opcode and payload."""
        first, second = await self.reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", await self.reader.readexactly(8))
        return first & 0x0F, await self.reader.readexactly(length)

    def abort(self) -> None:
        """Be gone, without a word."""
        self.writer.transport.abort()


class RawDevice(RawConnection):
    """A connection of a device.

    Attributes:
        session: Numbers the frames of those who mean to send valid ones.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Hello
    ) -> None:
        super().__init__(reader, writer)
        self.session = DeviceSession(hello)

    @classmethod
    async def connect(cls, url: str, hello: str) -> RawDevice:
        """Open the TCP connection only."""
        message = parse_message(hello)
        assert isinstance(message, Hello)
        return cls(*await dial(url), message)

    async def shake_hands(self, token: str | None = None) -> Welcome:
        """Upgrade, say hello, take the welcome."""
        await self.upgrade(token)
        await self.write(frame(TEXT, self.session.hello().encode()))
        opcode, payload = await self.receive()
        if opcode != TEXT:
            raise ConnectionResetError(payload)
        welcome = self.session.receive_text(payload.decode())
        assert isinstance(welcome, Welcome)
        return welcome

    def forward(self, tokens: int, width: int, *, reply: int) -> bytes:
        """A valid forward from position 0 on, as the bytes of a WebSocket frame."""
        encoded = Encoded(bytes(tokens * width * 4))
        return frame(BINARY, self.session.forward(0, tokens, encoded, reply=reply))


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a ``ws://`` address."""
    parts = urllib.parse.urlsplit(url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port

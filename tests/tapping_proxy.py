"""A TCP proxy on loopback that keeps what passes, and reads the WebSocket messages in it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

__all__ = ["Tapped", "binary_messages", "tapping_proxy"]


@dataclass
class Tapped:
    """What passed on the one connection there was."""

    port: int
    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)


def binary_messages(passed: bytes, *, up: bool) -> list[bytes]:
    """The binary messages in what passed one way, after the upgrade."""
    end = passed.index(b"\r\n\r\n") + 4
    reader = StreamReader()
    reader.feed_data(bytes(passed[end:]))
    reader.feed_eof()
    messages: list[bytes] = []
    opened: Opcode | None = None
    while not _at_end(reader):
        frame = _result(Frame.parse(reader.read_exact, mask=up))
        if frame.opcode in {Opcode.TEXT, Opcode.BINARY}:
            opened = frame.opcode
            if opened is Opcode.BINARY:
                messages.append(b"")
        if frame.opcode in {Opcode.BINARY, Opcode.CONT} and opened is Opcode.BINARY:
            messages[-1] += frame.data
    return messages


def _at_end(reader: StreamReader) -> bool:
    return _result(reader.at_eof())


def _result(steps):
    try:
        next(steps)
    except StopIteration as done:
        return done.value
    raise AssertionError("more is read than has passed")


@contextlib.contextmanager
def tapping_proxy(target_port: int) -> Iterator[Tapped]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tapped = Tapped(listener.getsockname()[1])
        thread = threading.Thread(target=_pass_on, args=(listener, target_port, tapped))
        thread.start()
        try:
            yield tapped
        finally:
            with contextlib.suppress(OSError):  # where nobody came it still waits
                socket.create_connection(("127.0.0.1", tapped.port)).close()
            thread.join()


def _pass_on(listener: socket.socket, target_port: int, tapped: Tapped) -> None:
    device, _ = listener.accept()
    with device, socket.create_connection(("127.0.0.1", target_port)) as server:
        ways = [
            threading.Thread(target=_pump, args=(device, server, tapped.up)),
            threading.Thread(target=_pump, args=(server, device, tapped.down)),
        ]
        for way in ways:
            way.start()
        for way in ways:
            way.join()


def _pump(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            kept += data
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

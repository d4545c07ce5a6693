"""An emulated link: a TCP proxy with a round-trip time, bandwidths, stalls and cuts.

Needs no privileges, and only what goes through it is slow. A byte arrives when the link has sent it
and all before it at its rate, plus half the round-trip time. All connections share the rate, as
they share a phone's uplink. Neither loss nor TCP's slow start is emulated: the two real connections
are on loopback.

    python -m bench.link --listen 127.0.0.1:9000 --to 127.0.0.1:8765 rtt=60ms,up=20Mbit
    python -m bench.link --check          how exact it is on this machine

A description is a list of these, each may be left out:

    rtt=60ms        round-trip time, half of it each way
    jitter=5ms      each packet takes up to that much longer, without overtaking another
    up=20Mbit       rate from who connects to the server; kbit, Mbit or Gbit a second
    down=50Mbit     rate the other way
    queue=200ms     what a direction's queue holds at most, as time at its rate; who sends more
                    has to wait (200ms)
    stall=1s/10s    nothing leaves for 1 s every 10 s, for the first time after 10 s
    cut=30s         all connections are lost every 30 s

On its stdin it takes ``stall SECONDS``, ``cut`` and ``count``, one a line; at its end it stops.
``count`` is answered by ``carried UP DOWN``: the bytes that it has taken so far, all that TCP
carries, of all connections.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import queue
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.link_settings import LinkSettings
from lambda_split.commands.processes import running
from lambda_split.errors import AddressUnavailable, ProcessFailed, UsageError

__all__ = ["EmulatedLink", "Traffic", "emulated_link"]

_NAME = "the emulated link"
_LAST_PORT = 65535
_STALL = r"[0-9]{1,6}(\.[0-9]{1,9})?"  # seconds

_PACKET_S = 0.001  # of the rate: what is delayed as one
_PACKET_BYTES = (1448, 64 * 1024)  # at least a TCP segment
_UNDERWAY_PACKETS = 1024  # bounds what a connection holds where the rate does not
_SOCKET_BYTES = 64 * 1024  # what the sockets hold is no part of the link: keep it small


class _Direction:
    """The clock of one direction of the link, which all connections share."""

    def __init__(self, rate: float, settings: LinkSettings) -> None:
        self._rate = rate
        self._settings = settings
        self._lock = threading.Lock()
        self._begin = time.monotonic()
        self._free_at = self._begin  # when all that was taken has left
        self._stalled_until = 0.0
        self._carried = 0
        self._random = random.Random(0)  # noqa: S311  # the same jitter each time, no secret
        least, most = _PACKET_BYTES
        self.packet_bytes = int(min(max(rate * _PACKET_S, least), most))

    def wait_for_room(self) -> None:
        """Block while the queue is full."""
        while True:
            with self._lock:
                waiting_s = self._free_at - time.monotonic() - self._settings.queue
            if waiting_s <= 0:
                return
            time.sleep(waiting_s)

    def take(self, count: int, arrived: float) -> float:
        """Send so many bytes; returns when they arrive on the other side."""
        with self._lock:
            begin = self._after_stall(max(arrived, self._free_at, self._stalled_until))
            self._free_at = begin + count / self._rate
            self._carried += count
            late = self._random.uniform(0.0, self._settings.jitter)
            return self._free_at + self._settings.rtt / 2 + late

    @property
    def carried(self) -> int:
        """Bytes taken so far."""
        with self._lock:
            return self._carried

    def stall(self, seconds: float) -> None:
        """Let nothing leave for a while."""
        with self._lock:
            self._stalled_until = time.monotonic() + seconds

    def _after_stall(self, when: float) -> float:
        every = self._settings.stall_every
        since = when - self._begin
        if math.isinf(every) or since < every:
            return when
        return when + max(0.0, self._settings.stall - since % every)


class _Proxy:
    """Accepts connections and passes them on.

    In threads: they sleep to the microsecond, an event loop to the millisecond.
    """

    def __init__(
        self, listener: socket.socket, to: tuple[str, int], settings: LinkSettings
    ) -> None:
        self._listener = listener
        self._to = to
        self._settings = settings
        self._up = _Direction(settings.up, settings)
        self._down = _Direction(settings.down, settings)
        self._lock = threading.Lock()
        self._open: set[_Passage] = set()

    def run(self) -> None:
        """Accept until the listener is closed, by another thread."""
        _start(self._cut_now_and_then)
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                if self._listener.fileno() == -1:
                    return
                raise
            _start(self._connect, near)

    def stall(self, seconds: float) -> None:
        self._up.stall(seconds)
        self._down.stall(seconds)

    def carried(self) -> tuple[int, int]:
        return self._up.carried, self._down.carried

    def cut(self) -> None:
        """Lose all connections, wherever they are in a message."""
        with self._lock:
            passages, self._open = self._open, set()
        for passage in passages:
            passage.lose()

    def _cut_now_and_then(self) -> None:
        while math.isfinite(self._settings.cut_every):
            time.sleep(self._settings.cut_every)
            self.cut()

    def _connect(self, near: socket.socket) -> None:
        try:
            time.sleep(self._settings.rtt)  # of the real handshake, which loopback does not have
            far = socket.create_connection(self._to, timeout=10)
        except OSError:
            near.close()
            return
        passage = _Passage(near, far)
        with self._lock:
            self._open.add(passage)
        passage.run(self._up, self._down)
        with self._lock:
            self._open.discard(passage)


class _Passage:
    """One connection through the link."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self._near = near
        self._far = far
        for one in (near, far):
            one.settimeout(None)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)

    def run(self, up: _Direction, down: _Direction) -> None:
        """Carry bytes both ways until both have ended, or the connection is lost."""
        threads = []
        for source, target, way in ((self._near, self._far, up), (self._far, self._near, down)):
            packets: queue.Queue[tuple[float, bytes]] = queue.Queue(_UNDERWAY_PACKETS)
            threads += [
                _start(_carry, source, packets, way),
                _start(self._deliver, packets, target),
            ]
        for thread in threads:
            thread.join()
        self._near.close()
        self._far.close()

    def lose(self) -> None:
        """Lose the connection, wherever it is in a message."""
        for one in (self._near, self._far):
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RDWR)

    def _deliver(self, packets: queue.Queue[tuple[float, bytes]], target: socket.socket) -> None:
        """Give bytes to the other side when they have arrived; none are the end."""
        data = b"-"
        while data:
            due, data = packets.get()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if data:
                    target.sendall(data)
                else:
                    target.shutdown(socket.SHUT_WR)
            except OSError:
                self.lose()  # what is still under way is of no use


def _carry(
    source: socket.socket, packets: queue.Queue[tuple[float, bytes]], way: _Direction
) -> None:
    """Take bytes from one side as fast as the link does."""
    data = b"-"
    while data:
        way.wait_for_room()
        try:
            data = source.recv(way.packet_bytes)
        except OSError:
            data = b""
        packets.put((way.take(len(data), time.monotonic()), data))


def _start(function: Callable[..., object], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


@dataclass(frozen=True)
class Traffic:
    """Bytes that crossed a link, with what WebSocket and HTTP add, without TCP's own headers.

    Attributes:
        up: From who connects to the server.
        down: Back.
    """

    up: int
    down: int

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(self.up - other.up, self.down - other.down)


class EmulatedLink:
    """A running link, in a process of its own so that it keeps time whatever its user does.

    Attributes:
        address: Host and port to connect to.
    """

    def __init__(self, process: subprocess.Popen[str], address: tuple[str, int]) -> None:
        self._process = process
        self.address = address

    def stall(self, seconds: float) -> None:
        """Let nothing leave for a while."""
        self._tell(f"stall {seconds:.6f}")

    def cut(self) -> None:
        """Lose all connections."""
        self._tell("cut")

    def carried(self) -> Traffic:
        """What it has carried so far, of all connections.

        Raises:
            ProcessFailed: it runs no more.
        """
        self._tell("count")
        match = _answer(self._process, r"carried (\d+) (\d+)\n")
        return Traffic(up=int(match[1]), down=int(match[2]))

    def _tell(self, command: str) -> None:
        stdin = self._process.stdin
        if stdin is None:
            raise ProcessFailed(_NAME)
        try:
            stdin.write(command + "\n")
            stdin.flush()
        except OSError as error:
            raise ProcessFailed(_NAME) from error


def _answer(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    line = "" if process.stdout is None else process.stdout.readline()
    match = re.fullmatch(pattern, line)
    if match is None:
        raise ProcessFailed(_NAME)
    return match


@contextlib.contextmanager
def emulated_link(to: tuple[str, int], description: str) -> Iterator[EmulatedLink]:
    """Run a link to an address.

    Args:
        to: Host and port of the server.
        description: See :meth:`LinkSettings.parse`.

    Raises:
        UsageError: the description makes no sense.
        ProcessFailed: the link could not start, and has said why on stderr.
    """
    LinkSettings.parse(description)
    arguments = ("--to", f"{to[0]}:{to[1]}", description)
    with running("bench.link", *arguments) as process:
        match = _answer(process, r"listening on (\S+):(\d+)\n")
        yield EmulatedLink(process, (match[1], int(match[2])))


def _address(text: str) -> tuple[str, int]:
    """HOST:PORT, for argparse."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _obey(proxy: _Proxy) -> None:
    for line in sys.stdin:
        match line.split():
            case []:
                pass
            case ["stall", seconds] if re.fullmatch(_STALL, seconds):
                proxy.stall(float(seconds))
            case ["cut"]:
                proxy.cut()
            case ["count"]:
                _say("carried {} {}".format(*proxy.carried()))
            case _:
                told = f"{line.strip()!r} is none of: stall SECONDS, cut, count\n"
                sys.stderr.write(told)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run a link, or check one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--listen", default=("127.0.0.1", 0), type=_address, metavar="HOST:PORT")
    parser.add_argument("--to", type=_address, metavar="HOST:PORT", help="the server")
    parser.add_argument("--check", action="store_true", help="measure how exact links are here")
    parser.add_argument("link", nargs="?", default="", help="its description")
    args = parser.parse_args()
    if args.check:
        from bench.link_check import check

        return 0 if check() else 1
    if args.to is None:
        parser.error("--to is missing")
    try:
        settings = LinkSettings.parse(args.link)
    except UsageError as error:
        parser.error(str(error))
    try:
        listener = socket.create_server(args.listen)
    except OSError as error:
        host, port = args.listen
        told = AddressUnavailable(f"{host}:{port}", error.strerror or str(error))
        sys.stderr.write(f"bench.link: {told}\n")
        return 1
    try:
        with listener, contextlib.suppress(KeyboardInterrupt):
            host, port = listener.getsockname()[:2]
            proxy = _Proxy(listener, args.to, settings)
            _start(proxy.run)
            _say(f"listening on {host}:{port}")
            _obey(proxy)
    except BrokenPipeError:
        # Whoever started it is gone. Point stdout elsewhere for the interpreter's flush at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How exact emulated links are on this machine: delay and rates against what was asked for."""

from __future__ import annotations

import contextlib
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator

from bench.link import emulated_link

__all__ = ["check"]

_DELAY_S = 1e-3  # by how much either may be off
_RATE = 0.05
_LOST = "the connection was lost"


def check() -> bool:
    """Measure delay and rates against what was asked for; whether all are close."""
    rows = []
    for milliseconds in (0, 20, 60, 200):
        with _echo() as to, emulated_link(to, f"rtt={milliseconds}ms") as link:
            with socket.create_connection(to) as plain:
                base = _ping(plain)
            with socket.create_connection(link.address) as through:
                found = _ping(through) - base
        rows.append((f"rtt={milliseconds}ms", f"{found * 1e3:.2f} ms", found - milliseconds / 1e3))
    fine = all(abs(error) < _DELAY_S for _, _, error in rows)
    for mbit in (1, 20, 50, 200):
        # There and back: the slower way is what is seen.
        for limits in (f"up={mbit}Mbit,down=1Gbit", f"down={mbit}Mbit,up=1Gbit"):
            with _echo() as to, emulated_link(to, f"rtt=20ms,{limits}") as link:
                found = _rate(link.address, int(mbit * 1e6 / 8)) / mbit
            rows.append((limits, f"{found * mbit:.2f} Mbit/s", found - 1))
            fine = fine and abs(found - 1) < _RATE
    lines = ["| asked for | found | |", "|---|---|---|"]
    for asked, measured, error in rows:
        shown = f"{error * 1e3:+.2f} ms" if asked.startswith("rtt") else f"{error:+.1%}"
        lines.append(f"| {asked} | {measured} | {shown} |")
    sys.stdout.write("\n".join(lines) + "\n")
    return fine


def _ping(connection: socket.socket) -> float:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        connection.sendall(b"x")
        if connection.recv(1) != b"x":
            raise ConnectionError(_LOST)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _rate(address: tuple[str, int], count: int) -> float:
    """Megabits a second of that many bytes, from the first to the last one that comes back."""
    with socket.create_connection(address) as connection:
        _start(connection.sendall, bytes(count))
        seen, first, last = 0, 0.0, 0.0
        while seen < count:
            data = connection.recv(1 << 16)
            if not data:
                raise ConnectionError(_LOST)
            last = time.perf_counter()
            if not seen:
                first, skipped = last, len(data)
            seen += len(data)
    return (seen - skipped) * 8 / (last - first) / 1e6


@contextlib.contextmanager
def _echo() -> Iterator[tuple[str, int]]:
    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                _start(repeat, listener.accept()[0])

    def repeat(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        _start(serve)
        yield listener.getsockname()[:2]


def _start(function: Callable[..., object], *arguments: object) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()

"""Waiting for a socket, with any number of files open."""

from __future__ import annotations

import select
import selectors
import socket

__all__ = ["wait_readable", "wait_writable"]


def wait_readable(connection: socket.socket, seconds: float | None) -> bool:
    """Wait until a socket has something to read, its end included; False where it takes too long.

    Args:
        connection: Open.
        seconds: None waits for ever.
    """
    return _wait(connection, selectors.EVENT_READ, seconds)


def wait_writable(connection: socket.socket, seconds: float | None) -> bool:
    """Wait until a socket has room, or an error to tell; False where it takes too long.

    Args:
        connection: Open.
        seconds: None waits for ever.
    """
    return _wait(connection, selectors.EVENT_WRITE, seconds)


def _wait(connection: socket.socket, event: int, seconds: float | None) -> bool:
    if hasattr(select, "poll"):  # any number of open files, unlike select()
        poll = select.poll()
        wanted = select.POLLIN if event == selectors.EVENT_READ else select.POLLOUT
        poll.register(connection.fileno(), wanted)
        return bool(poll.poll(None if seconds is None else max(0.0, seconds) * 1000))
    with selectors.DefaultSelector() as selector:
        selector.register(connection, event)
        return bool(selector.select(seconds))

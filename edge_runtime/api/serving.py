"""Running the application with uvicorn on a socket of its own."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from edge_runtime.api.guard import CrowdGuard, StopGuard, is_loopback
from edge_runtime.api.patience import ImpatientProtocol
from lambda_split.errors import AddressUnavailable, UsageError

__all__ = ["MOST_CONNECTIONS", "check_exposure", "listen", "serve_app"]

_BACKLOG = 128
MOST_CONNECTIONS = 512
_LARGEST_PORT = 65535
_GRACE_S = 5  # answers that are being sent when the server is told to stop


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: Name or address.
        port: 0 takes a free one.

    Raises:
        AddressUnavailable: nothing can listen there.
    """
    if port > _LARGEST_PORT:  # the system's library would take it modulo 65,536
        raise AddressUnavailable(f"{host}:{port}", f"ports go up to {_LARGEST_PORT}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        raise AddressUnavailable(f"{host}:{port}", str(error)) from error


def check_exposure(
    listener: socket.socket,
    host: str,
    *,
    has_key: bool,
    insecure: bool,
    option: str = "--api-key-file",
) -> None:
    """Refuse to serve other machines without a secret, unless told to.

    Args:
        listener: What listens.
        host: What the user asked to listen on, for the message.
        has_key: Whether requests must carry a secret.
        insecure: Whether the user says that it may go without.
        option: What gives a secret, for the message.

    Raises:
        UsageError: others can connect, and there is no secret.
    """
    if is_loopback(listener.getsockname()[0]) or has_key or insecure:
        return
    raise UsageError(
        f"--host {host} can be reached from other machines: give {option}, or whoever "
        "reaches the port can use it; and mind that prompts cross the network unencrypted. "
        "--insecure serves without"
    )


class _Server(uvicorn.Server):
    """Says when it is told to stop, before it waits for the answers that are being sent."""

    def __init__(self, config: uvicorn.Config, on_end: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_end = on_end

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_end()
        super().handle_exit(sig, frame)


def serve_app(
    app: ASGIApp,
    listener: socket.socket,
    *,
    path: str,
    on_end: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGINT or SIGTERM; says on stdout where.

    Args:
        app: What is served.
        listener: Where.
        path: Where people find it there.
        on_end: Called when it is told to stop: answers without an end should find theirs.
    """
    stoppable = StopGuard(app, lambda: server.should_exit)
    config = uvicorn.Config(
        CrowdGuard(stoppable, MOST_CONNECTIONS, lambda: len(server.server_state.connections)),
        log_config=None,  # the program's own logging
        access_log=False,
        server_header=False,
        http=ImpatientProtocol,
        ws="none",
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config, on_end)
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    with _ended_by_signals(server):
        sys.stdout.write(f"listening on http://{name}:{port}{path}\n")
        sys.stdout.flush()
        server.run(sockets=[listener])


@contextlib.contextmanager
def _ended_by_signals(server: _Server) -> Iterator[None]:
    """Let signals end a server from now on: to end by one is success.

    Uvicorn listens to them itself while it runs. One that comes before that it would never know of,
    and the one that ended it is raised again by it afterwards.
    """

    def end(number: int, frame: FrameType | None) -> None:
        if not server.started:
            server.handle_exit(number, frame)

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

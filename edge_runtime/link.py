"""A WebSocket connection to the trunk service, whatever is said on it. No retries in here."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import ssl
import struct
import urllib.parse
import weakref
from collections.abc import Callable
from http import HTTPStatus
from typing import NoReturn

import websockets.exceptions
import websockets.sync.client
import websockets.uri

from edge_runtime.endpoint import Endpoint
from edge_runtime.retry import retry_after_s
from edge_runtime.sender import MessageSender
from edge_runtime.stats import Meter
from edge_runtime.tls import speaks_tls, tls_error_of
from lambda_split.errors import (
    CapacityRefused,
    ConnectionLost,
    MessageMalformed,
    RemoteError,
    ServerDraining,
    ServerUnreachable,
    TlsRequired,
    TokenMissing,
    TokenRevoked,
    Unauthorized,
    UsageError,
    WireError,
)
from lambda_split.wire.messages import Bye

__all__ = ["Link"]

# A server that is gone does not answer the closing handshake: don't wait for it for long.
_CLOSE_TIMEOUT_S = 2.0
# No more replies than the library holds unread (its max_queue): it would stop reading, the server
# in turn, and a long send would wait for both.
MOST_IN_FLIGHT = 16
# Close codes (RFC 6455, section 7.4.1) by which one side objects to what the other sent: protocol
# error, invalid text, policy, message too big. Trying the same again would change nothing.
_OBJECTIONS = frozenset({1002, 1007, 1008, 1009})
_REVOKED = 'error_description="revoked"'  # in the challenge of HTTP 401
_PLAIN_PORT = 80


class Link:
    """An open WebSocket connection: messages out, messages in, counted.

    Not thread-safe: one thread sends and receives. One that is dropped without being closed is cut
    off. For a process that was forked off it is lost, and stays what it was for the other one.
    """

    def __init__(self, endpoint: Endpoint, *, longest_message: int, meter: Meter) -> None:
        """Connect.

        Args:
            endpoint: Where the trunk is.
            longest_message: Bytes of the longest message that may come in.
            meter: Counts the bytes.

        Raises:
            ServerUnreachable: no connection.
            CapacityRefused: the server answered HTTP 503 or 429.
            TlsError: the server's certificate is not to be trusted, or only one side speaks TLS.
            Unauthorized: the server does not know the token.
            TokenMissing: there is none, and the server wants one.
            TokenRevoked: the server takes it no more.
        """
        self._endpoint = endpoint
        self._meter = meter
        with contextlib.ExitStack() as lifetime:
            self._socket = _connect(endpoint, longest_message, lifetime)
            self._sender = MessageSender(self._socket, stall_s=endpoint.reply_timeout_s)
            self._lifetime = lifetime.pop_all()
        self._process = os.getpid()
        # The library's threads refer to its connection: both would stay, and the session.
        dropped = weakref.finalize(self, _cut_off_dropped, self._sender, self._process)
        dropped.atexit = False  # the end of the process ends it anyway

    def send(self, message: str | bytes, parting: Callable[[str], object]) -> None:
        """Send a message, without waiting until a slow link has taken it.

        Args:
            message: Text or binary.
            parting: Reads a text message that the server sent before it closed, and raises the
                error in it.

        Raises:
            WireError: the server closed, and said why.
            ConnectionLost: the connection broke, or the server does not read.
        """
        self._check_process()
        try:
            self._sender.send(message)
        except (OSError, websockets.exceptions.WebSocketException) as error:
            self._raise_parting_error(error, parting)
        self._meter.bytes_up += len(message)

    def receive(self, timeout_s: float) -> str | bytes:
        """Wait for a message.

        Raises:
            RemoteError: the server objected in a way that this version does not know.
            MessageMalformed: what it sent was no WebSocket message.
            ConnectionLost: the connection broke, or it took too long.
        """
        self._check_process()
        try:
            message = self._socket.recv(timeout=timeout_s)
        except TimeoutError as error:
            raise ConnectionLost(f"no answer within {timeout_s:g} s") from error
        except (OSError, websockets.exceptions.WebSocketException) as error:
            _raise_closed(self._sender.failure or error)
        self._meter.bytes_down += len(message)
        return message

    def close(self, goodbye: Callable[[], str] | None) -> None:
        """Say goodbye and close, or cut it off where there is none; never raises.

        Args:
            goodbye: Makes the last message. None where answers are in flight: a goodbye would come
                after all that is queued, seconds on a slow link, in which the server computes what
                nobody wants any more.
        """
        if self._forked:
            self._socket.socket.close()  # this process's hold on it
            return
        if goodbye is None:
            self._sender.cut_off()
        else:
            # If it is gone already, that is what was wanted.
            with contextlib.suppress(
                OSError, websockets.exceptions.WebSocketException, ConnectionLost, WireError
            ):
                self._sender.send(goodbye())
        self._sender.stop()
        self._lifetime.close()

    def abandon(self) -> None:
        """Close where no session came about; never raises."""
        self._sender.stop()
        self._lifetime.close()

    @property
    def _forked(self) -> bool:
        return os.getpid() != self._process

    def _check_process(self) -> None:
        if self._forked:
            raise ConnectionLost("it belongs to the process that this one was forked from")

    def _raise_parting_error(self, cause: Exception, parting: Callable[[str], object]) -> NoReturn:
        """Sending failed because the server closed: its last message says why."""
        try:
            while True:
                message = self._socket.recv(timeout=0)
                if isinstance(message, str) and isinstance(parting(message), Bye):
                    raise ServerDraining
        except (OSError, websockets.exceptions.WebSocketException):
            _raise_closed(cause)


def _cut_off_dropped(sender: MessageSender, process: int) -> None:
    """Called by the garbage collector, in any thread: nothing in here waits."""
    if os.getpid() == process:
        sender.cut_off()
        sender.end()


def _raise_closed(error: Exception) -> NoReturn:
    """The connection ended: by accident, or because one side objects to what the other sent."""
    if isinstance(error, ConnectionLost):
        raise error
    if isinstance(error, websockets.exceptions.ConnectionClosed):
        # The side that closes first says why, the other repeats it.
        close = error.rcvd if error.rcvd_then_sent is not False else None
        if close is not None and close.code in _OBJECTIONS:
            reason = close.reason or "no reason given"
            raise RemoteError(f"close-{close.code}", reason) from error
        if close is None and error.sent is not None and error.sent.code in _OBJECTIONS:
            raise MessageMalformed(error.sent.reason) from error
        if close is None:
            raise ConnectionLost("the server went away") from error
    raise ConnectionLost(str(error) or type(error).__name__) from error


def _limit_sending(connection: socket.socket, seconds: float) -> None:
    """Let a send fail that makes no progress for that long, since the peer does not read.

    Without it sending blocks for good once the buffers are full. A timeout of the socket object
    would not do: it would hold for the library's receiving thread, too.
    """
    if os.name == "nt":
        value = struct.pack("L", math.ceil(seconds * 1000))  # a DWORD of milliseconds
    else:
        whole = int(seconds)
        value = struct.pack("ll", whole, int((seconds - whole) * 1_000_000))  # struct timeval
    # A server that ended the connection right away has left no socket; what it said is read next.
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        # Python's TLS tries again for ever where a send times out. Linux can end the connection
        # itself instead; on other systems a server that stops reading holds a TLS send up.
        if isinstance(connection, ssl.SSLSocket) and hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = math.ceil(seconds * 1000)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _connect(
    endpoint: Endpoint, max_size: int, lifetime: contextlib.ExitStack
) -> websockets.sync.client.ClientConnection:
    headers = {"Authorization": f"Bearer {endpoint.token}"} if endpoint.token is not None else {}
    # The library's log of details has frames and headers in it: hidden states and the token. What
    # goes wrong it raises as well: also where bytes come in that moment, which it takes for a bug.
    library_logger = logging.getLogger(f"{__name__}.websockets")
    library_logger.setLevel(logging.CRITICAL)
    try:
        connection = lifetime.enter_context(
            websockets.sync.client.connect(
                endpoint.url,
                ssl=endpoint.tls,
                additional_headers=headers,
                compression=None,  # hidden states do not deflate
                open_timeout=endpoint.connect_timeout_s,
                close_timeout=_CLOSE_TIMEOUT_S,
                max_size=max_size,
                max_queue=MOST_IN_FLIGHT,
                user_agent_header=None,
                proxy=None,
                logger=library_logger,
            )
        )
        _refuse_redirect(endpoint, connection)
        _limit_sending(connection.socket, endpoint.reply_timeout_s)
    except websockets.exceptions.InvalidStatus as error:
        _raise_status(endpoint, error)
    except websockets.exceptions.InvalidURI as error:
        raise UsageError(f"{endpoint.url!r} is not a WebSocket address") from error
    except TimeoutError as error:
        reason = f"no connection within {endpoint.connect_timeout_s:g} s"
        raise ServerUnreachable(endpoint.url, reason) from error
    except (OSError, websockets.exceptions.WebSocketException) as error:
        if (wrong := tls_error_of(endpoint.url, error)) is not None:
            raise wrong from error
        if isinstance(error, websockets.exceptions.InvalidMessage):
            _raise_if_tls(endpoint, error)  # its answer to plain HTTP is none, or an alert
        raise ServerUnreachable(endpoint.url, str(error) or type(error).__name__) from error
    return connection


def _raise_status(endpoint: Endpoint, error: websockets.exceptions.InvalidStatus) -> NoReturn:
    """The server answered the upgrade request with something else than an upgrade."""
    status = error.response.status_code
    if status == HTTPStatus.UNAUTHORIZED:
        if endpoint.token is None:
            raise TokenMissing from error
        challenge = " ".join(error.response.headers.get_all("WWW-Authenticate"))
        raise (TokenRevoked if _REVOKED in challenge else Unauthorized) from error
    if status == HTTPStatus.BAD_REQUEST:
        _raise_if_tls(endpoint, error)  # what proxies answer to plain HTTP
    if status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
        again = retry_after_s(error.response.headers)
        raise CapacityRefused(f"HTTP {status}", again) from error
    raise ServerUnreachable(endpoint.url, f"the server answered HTTP {status}") from error


def _raise_if_tls(endpoint: Endpoint, cause: Exception) -> None:
    """Tell a wrong scheme from a server in trouble."""
    if endpoint.tls is not None:
        return
    parts = urllib.parse.urlsplit(endpoint.url)
    if speaks_tls(parts.hostname or "", parts.port or _PLAIN_PORT, endpoint.connect_timeout_s):
        raise TlsRequired(endpoint.url) from cause


def _refuse_redirect(
    endpoint: Endpoint, connection: websockets.sync.client.ClientConnection
) -> None:
    """The library follows redirects; hidden states go where the user said, and nowhere else."""
    wanted = websockets.uri.parse_uri(endpoint.url)
    found = connection.protocol.uri
    if (found.secure, found.host, found.port) != (wanted.secure, wanted.host, wanted.port):
        reason = f"it redirects to {found.host}:{found.port}: where that is right, give its address"
        raise ServerUnreachable(endpoint.url, reason)

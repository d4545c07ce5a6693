"""A TLS socket under two threads, as the WebSocket library uses it."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
import websockets.sync.client
import websockets.sync.server

from edge_runtime.tls import client_context
from edge_runtime.tls_socket import TlsSocket
from tests.certificates import Issuer

LARGE = 8 * 1024 * 1024  # more than all buffers of a connection
_PATIENCE_S = 60  # reached by a fault only


@pytest.fixture
def issuer(tmp_path) -> Issuer:
    return Issuer(tmp_path)


@pytest.fixture
def server_context(issuer) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = issuer.issue("server")
    context.load_cert_chain(certificate.cert, certificate.key)
    return context


@contextlib.contextmanager
def connected(
    server: ssl.SSLContext, client: ssl.SSLContext
) -> Iterator[tuple[TlsSocket, ssl.SSLSocket]]:
    """Both ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        accepted: list[ssl.SSLSocket] = []

        def accept() -> None:
            plain, _ = listener.accept()
            accepted.append(server.wrap_socket(plain, server_side=True))

        thread = threading.Thread(target=accept)
        thread.start()
        plain = socket.create_connection(listener.getsockname(), timeout=_PATIENCE_S)
        near = stack.enter_context(client.wrap_socket(plain, server_hostname="localhost"))
        thread.join()
        far = stack.enter_context(accepted[0])
        far.settimeout(_PATIENCE_S)
        assert isinstance(near, TlsSocket)
        yield near, far


@pytest.fixture
def ends(server_context, issuer) -> Iterator[tuple[TlsSocket, ssl.SSLSocket]]:
    with connected(server_context, client_context(issuer.ca_file)) as both:
        yield both


def test_session_tickets_that_come_while_the_request_goes_out_lose_nothing(
    server_context, issuer
) -> None:
    # Python's own socket class fails several times in so many connections.
    server_context.num_tickets = 200

    def echo(connection: websockets.sync.server.ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    context = client_context(issuer.ca_file)
    with websockets.sync.server.serve(echo, "127.0.0.1", 0, ssl=server_context) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"wss://localhost:{server.socket.getsockname()[1]}"
        try:
            for number in range(200):
                with websockets.sync.client.connect(url, ssl=context, proxy=None) as connection:
                    connection.send(f"{number}")
                    assert connection.recv(timeout=_PATIENCE_S) == f"{number}"
        finally:
            server.shutdown()
            thread.join()


def test_whoever_waits_for_data_does_not_keep_the_other_from_sending(ends) -> None:
    near, far = ends
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(near.recv(100)))
    reader.start()
    for number in range(100):
        near.sendall(b"%03d" % number)
        assert far.recv(3) == b"%03d" % number
    far.sendall(b"at last")
    reader.join(_PATIENCE_S)
    assert received == [b"at last"]


def test_large_data_goes_both_ways_at_once(ends) -> None:
    near, far = ends
    up, down = os.urandom(LARGE), os.urandom(LARGE)

    def receive(connection: ssl.SSLSocket) -> bytes:
        parts, left = [], LARGE
        while left:
            parts.append(connection.recv(1 << 16))
            assert parts[-1], "the connection has ended"
            left -= len(parts[-1])
        return b"".join(parts)

    def far_side() -> None:  # one thread, in turns: OpenSSL allows no more
        arrived.append(receive(far))
        far.sendall(down)

    arrived: list[bytes] = []
    other = threading.Thread(target=far_side)
    sender = threading.Thread(target=near.sendall, args=(up,))
    other.start()
    sender.start()
    assert receive(near) == down
    sender.join(_PATIENCE_S)
    other.join(_PATIENCE_S)
    assert arrived == [up]


def test_timeouts_are_those_of_a_socket(ends) -> None:
    near, far = ends
    near.settimeout(0.05)
    with pytest.raises(TimeoutError):
        near.recv(1)
    with pytest.raises(TimeoutError):
        near.sendall(bytes(LARGE))  # nobody reads
    assert near.gettimeout() == 0.05
    near.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        near.recv(1)
    far.close()


def test_the_end_of_the_connection_is_an_empty_read(ends) -> None:
    near, far = ends
    far.shutdown(socket.SHUT_RDWR)
    assert near.recv(1) == b""


def test_a_reader_is_woken_when_the_socket_is_cut_off(ends) -> None:
    near, _ = ends
    ended = threading.Event()

    def read() -> None:
        with contextlib.suppress(OSError):
            near.recv(1)
        ended.set()

    threading.Thread(target=read).start()
    socket.socket.shutdown(near, socket.SHUT_RDWR)
    assert ended.wait(_PATIENCE_S)

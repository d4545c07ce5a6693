"""Requests that break off, or stop being HTTP, before all of them was sent."""

from __future__ import annotations

import contextlib
import socket
import urllib.parse
from collections.abc import Iterator

import pytest

from tests.edge_runtime.api.servers import ApiServer, running_api
from tests.servers import free_port

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def api(demo_bundle):
    """Without a trunk: no request gets that far."""
    url = f"ws://127.0.0.1:{free_port()}"
    with running_api("--bundle", str(demo_bundle.path), "--url", url) as server:
        yield server


@contextlib.contextmanager
def connected(api: ApiServer) -> Iterator[socket.socket]:
    address = urllib.parse.urlsplit(api.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        yield connection


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """What comes up to an end, or up to that of the connection."""
    read = b""
    while not read.endswith(end) and (piece := connection.recv(4096)):
        read += piece
    return read


def test_a_client_that_goes_away_while_it_sends_is_no_failure_of_the_server(api) -> None:
    with connected(api) as connection:
        connection.sendall(HEAD % b"application/json")
        connection.sendall(b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n")
        assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")  # it reads
        connection.sendall(b"{")
    assert api.stop() == 0
    assert api.log() == ""


def test_a_body_that_is_no_http_before_its_answer(api) -> None:
    with connected(api) as connection:
        connection.sendall(HEAD % b"application/json" + CHUNKED + b"zz\r\n")
        assert read_until(connection, b"never").startswith(b"HTTP/1.1 400 ")
    assert api.stop() == 0
    assert "Traceback" not in api.log()
    assert "ERROR" not in api.log()


def test_a_body_that_is_no_http_behind_its_answer(api) -> None:
    with connected(api) as connection:
        connection.sendall(HEAD % b"text/plain" + CHUNKED)
        assert read_until(connection, b"}}").startswith(b"HTTP/1.1 415 ")
        connection.sendall(b"zz\r\n")
        assert read_until(connection, b"never") == b""
    assert api.stop() == 0
    assert "Traceback" not in api.log()
    assert "ERROR" not in api.log()

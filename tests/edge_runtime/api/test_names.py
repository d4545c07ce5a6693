"""Hosts and origins that a user allows, in the form in which browsers name them."""

from __future__ import annotations

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from edge_runtime.api.guard import HostGuard
from edge_runtime.api.names import allowed_host, page_origin
from lambda_split.errors import UsageError


@pytest.mark.parametrize(
    ("allowed", "asked"),
    [
        ("My.Box", "my.box:8000"),
        ("my.box:8000", "my.box:8000"),
        ("my_box.", "MY_BOX"),
        ("my.box", "my.box."),
        ("192.168.1.5:8000", "192.168.1.5:8000"),
        ("FD00:0:0::1", "[fd00::1]:8000"),
        ("[fd00::1]", "[fd00:0::1]"),
        ("[fd00::1]:8000", "[fd00::1]:8000"),
    ],
)
def test_a_host_that_is_allowed_is_answered(allowed, asked) -> None:
    for hosts in ((allowed_host(allowed),), (allowed,)):
        client = TestClient(HostGuard(PlainTextResponse("all"), hosts, ()))
        assert client.get("/", headers={"host": asked}).status_code == 200
        for other in ("other.box", "[fd00::2]", "192.168.1.6"):
            assert client.get("/", headers={"host": other}).status_code == 403


@pytest.mark.parametrize(
    "text",
    ["", " ", "http://my.box", "my.box/", "*", "*.box", "me@my.box", "my box", "[fd00::1", "[1]"],
)
def test_a_host_that_no_request_names_is_refused(text) -> None:
    with pytest.raises(UsageError, match="--allowed-host"):
        allowed_host(text)


@pytest.mark.parametrize(
    ("allowed", "sent"),
    [
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://localhost:3000/", "http://localhost:3000"),
        ("HTTP://LocalHost", "http://localhost"),
        ("http://localhost:80", "http://localhost"),
        ("https://my.box:443/", "https://my.box"),
        ("https://my.box:80", "https://my.box:80"),
        ("http://[0:0::1]:3000", "http://[::1]:3000"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_an_origin_is_as_browsers_send_it(allowed, sent) -> None:
    assert page_origin(allowed) == sent


@pytest.mark.parametrize(
    "text",
    [
        *("", "*", "null", "localhost:3000", "my.box", "http://", "http://*", "http://my.box/x"),
        *("http://my.box?x", "http://me@my.box", "http://my.box:x", "http://[1", "http://bü.de"),
    ],
)
def test_what_no_page_sends_is_refused(text) -> None:
    with pytest.raises(UsageError, match="--cors-origin"):
        page_origin(text)

"""Clients that go away before they were answered."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.parse
from collections.abc import Iterator

import openai
import pytest

from bench.link import emulated_link
from edge_runtime import TextGenerator
from tests.edge_runtime.api.servers import ENDLESS, ApiServer, await_sessions, running_api
from tests.servers import TrunkServer

LONG = [5 + number % 200 for number in range(900)]
UP = "up=200kbit"  # a long prompt takes over twenty seconds


HEAD = (
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)


@contextlib.contextmanager
def connected(api: ApiServer) -> Iterator[socket.socket]:
    address = urllib.parse.urlsplit(api.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        yield connection


@contextlib.contextmanager
def asking_for_ever(api: ApiServer) -> Iterator[socket.socket]:
    """A client whose request is being worked on."""
    fields = {**ENDLESS, **ENDLESS["extra_body"]}
    del fields["extra_body"]
    body = json.dumps(fields).encode()
    with connected(api) as connection:
        connection.sendall(HEAD % len(body) + body)
        deadline = time.monotonic() + 60
        while not api.state()["busy"]:
            assert time.monotonic() < deadline, "nothing is worked on"
            time.sleep(0.02)
        yield connection


@pytest.fixture
def slow_link(trunk):
    with emulated_link(("127.0.0.1", trunk.port), UP) as link:
        yield link


@pytest.fixture
def slow_api(demo_bundle, slow_link):
    """One session, over the slow link."""
    host, port = slow_link.address
    arguments = ("--bundle", str(demo_bundle.path), "--url", f"ws://{host}:{port}")
    with running_api(*arguments, "--max-sessions", "1", "--codec", "fp32") as server:
        yield server


@pytest.mark.parametrize("streams", [False, True])
def test_a_prompt_that_nobody_waits_for_ends_between_two_pieces(
    slow_api, slow_link, demo_bundle, trunk, streams
) -> None:
    width = demo_bundle.manifest.geometry.hidden_size
    with slow_api.client() as client:
        before = client.completions.create(model="demo", prompt="The fox", max_tokens=8)
        carried = slow_link.carried().up
        with pytest.raises(openai.APITimeoutError):
            client.completions.create(
                model="demo", prompt=LONG, max_tokens=8, stream=streams, timeout=2
            )
        slow_api.await_idle()
        assert slow_link.carried().up - carried < len(LONG) * width * 4 / 2
        assert slow_api.state()["sessions"] == 1
        # What was sent of it is forgotten on both sides; what was held before is held again.
        again = client.completions.create(model="demo", prompt="The fox", max_tokens=8)
        other = client.completions.create(model="demo", prompt=LONG[:40], max_tokens=8)
    assert again.choices == before.choices
    with TextGenerator.open(demo_bundle, trunk.url, codec="fp32") as generator:
        expected = generator.generate(LONG[:40], max_new_tokens=8).text
    assert other.choices[0].text == expected


def test_a_cancelled_stream_is_over_for_the_trunk_too(demo_bundle, idle_trunk) -> None:
    def decoded() -> float:
        return idle_trunk.metric("lambda_split_tokens_total", kind="decode")

    arguments = ("--bundle", str(demo_bundle.path), "--url", idle_trunk.url)
    with running_api(*arguments, "--idle", "1") as api, api.client() as client:
        streams = [client.completions.create(**ENDLESS, stream=True) for _ in range(2)]
        for stream in streams:
            next(iter(stream))
        assert api.state()["busy"] == 2
        assert idle_trunk.metric("lambda_split_sessions_open") == 2
        for stream in streams:
            stream.close()
        api.await_idle()  # thousands of tokens earlier than by itself
        deadline = time.monotonic() + 30
        until_then = None
        while (now := decoded()) != until_then:  # a step is counted after its answer
            assert time.monotonic() < deadline, "the trunk goes on"
            until_then = now
            time.sleep(0.5)
        # Nobody uses them any more, so that they give their places back.
        await_sessions(idle_trunk, 0)
        assert api.state()["sessions"] == 0


@pytest.mark.parametrize("ahead", [b"\r\n", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_who_sent_more_and_goes_away_is_noticed(api, ahead) -> None:
    with asking_for_ever(api) as connection:
        connection.sendall(ahead)
    api.await_idle()  # minutes earlier than by itself


def test_who_sends_too_much_before_the_answer_is_sent_away(api) -> None:
    with asking_for_ever(api) as connection:
        with contextlib.suppress(ConnectionError):  # it does not read what it does not want
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5000)
            assert connection.recv(1) == b""
        api.await_idle()


def test_a_request_that_came_before_the_answer_is_answered_next(api) -> None:
    with connected(api) as connection:
        body = json.dumps({"model": "demo", "prompt": "The fox", "max_tokens": 2}).encode()
        second = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(HEAD % len(body) + body + second)
        answers = b""
        while piece := connection.recv(4096):
            answers += piece
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.index(b"text_completion") < answers.index(b"waiting")


def test_nobody_waits_for_a_trunk_that_is_away(demo_bundle) -> None:
    trunk = TrunkServer("demo", "--dtype", "float32")
    try:
        trunk.start()
        arguments = ("--bundle", str(demo_bundle.path), "--url", trunk.url)
        with (
            running_api(*arguments, "--max-sessions", "1", "--give-up-after", "600") as api,
            api.client() as client,
        ):
            stream = client.completions.create(**ENDLESS, stream=True)
            next(iter(stream))
            trunk.kill()
            stream.close()
            api.await_idle()
            trunk.start()
            answer = client.completions.create(model="demo", prompt="The fox", max_tokens=2)
            assert answer.usage.completion_tokens == 2
    finally:
        trunk.close()

"""Clients that go away before they were answered."""

from __future__ import annotations

import time

import openai
import pytest

from bench.link import emulated_link
from edge_runtime import TextGenerator
from tests.edge_runtime.api.servers import ENDLESS, await_sessions, running_api
from tests.servers import TrunkServer

LONG = [5 + number % 200 for number in range(900)]
UP = "up=200kbit"  # a long prompt takes over twenty seconds


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

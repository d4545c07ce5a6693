"""Requests when the trunk has no place for another session."""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import threading
import time

import openai
import pytest

from edge_runtime import TextGenerator
from tests.edge_runtime.api.servers import ENDLESS, await_sessions, running_api
from tests.servers import TrunkServer

PROMPTS = [f"Once upon a time there lived a {name}" for name in ["fox", "owl", "bat", "hen"]]
AGAIN_S = 5  # says the trunk


def complete(client: openai.OpenAI, prompt: str) -> str:
    answer = client.completions.create(model="demo", prompt=prompt, max_tokens=16)
    return answer.choices[0].text


def _refused(trunk: TrunkServer) -> float:
    """How many sessions there was no place for."""
    return trunk.metric("lambda_split_refused_total", reason="capacity-refused")


@pytest.fixture
def full_api(demo_bundle, idle_trunk):
    arguments = ("--bundle", str(demo_bundle.path), "--url", idle_trunk.url, "--codec", "fp32")
    with running_api(*arguments, "--max-sessions", "4") as server:
        yield server


def test_requests_share_the_sessions_that_there_are(full_api, demo_bundle, idle_trunk) -> None:
    with (
        TextGenerator.open(demo_bundle, idle_trunk.url, codec="fp32") as another,
        full_api.client() as client,
        concurrent.futures.ThreadPoolExecutor(4) as threads,
    ):
        begin = time.monotonic()
        expected = [another.generate(prompt, max_new_tokens=16).text for prompt in PROMPTS]
        for _ in range(2):
            assert list(threads.map(lambda prompt: complete(client, prompt), PROMPTS)) == expected
            assert full_api.state()["sessions"] == 1
        # Three of the first four knocked in vain; then they took the trunk at its word.
        refused = _refused(idle_trunk)
        assert 1 <= refused <= 3 * math.ceil((time.monotonic() - begin) / AGAIN_S)
        another.close()
        deadline = time.monotonic() + 60
        while full_api.state()["sessions"] < 2:
            assert time.monotonic() < deadline
            assert list(threads.map(lambda prompt: complete(client, prompt), PROMPTS)) == expected


def test_who_waits_gets_the_place_that_becomes_free(full_api, demo_bundle, idle_trunk) -> None:
    """Not only the session that works all the time."""
    with (
        TextGenerator.open(demo_bundle, idle_trunk.url) as another,
        full_api.client() as client,
    ):
        endless = client.completions.create(**ENDLESS, stream=True)
        next(iter(endless))
        threading.Timer(2, another.close).start()
        assert complete(client, PROMPTS[0])
        assert full_api.state() == {**full_api.state(), "sessions": 2, "busy": 1}
        endless.close()


def test_without_a_session_it_says_when_to_try_again(full_api, demo_bundle, idle_trunk) -> None:
    with contextlib.ExitStack() as others:
        for _ in range(2):
            others.enter_context(TextGenerator.open(demo_bundle, idle_trunk.url))
        await_sessions(idle_trunk, 2)
        with full_api.client() as client, pytest.raises(openai.InternalServerError) as caught:
            complete(client, PROMPTS[0])
        assert (caught.value.status_code, caught.value.code) == (503, "trunk_full")
        wait_s = int(caught.value.response.headers["retry-after"])
        assert wait_s == AGAIN_S  # up to 60 s OpenAI's client takes it from a server
        assert full_api.state()["sessions"] == 0
        refused = _refused(idle_trunk)
        begin = time.monotonic()
        with (
            full_api.client(max_retries=9) as client,
            concurrent.futures.ThreadPoolExecutor(1) as thread,
        ):
            answer = thread.submit(complete, client, PROMPTS[0])
            while _refused(idle_trunk) == refused:  # it knocks in vain once more
                assert time.monotonic() - begin < 60
                time.sleep(0.05)
            others.close()
            assert answer.result()
        assert time.monotonic() - begin >= wait_s

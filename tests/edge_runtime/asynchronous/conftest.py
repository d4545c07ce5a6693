"""What the tests of the asynchronous twins share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from edge_runtime import (
    AsyncTextGenerator,
    TextGenerator,
    TextModel,
)
from tests.edge_runtime.asynchronous.some_prompts import RETRY
from tests.edge_runtime.gates import Gate
from tests.edge_runtime.hostile_server import hostile_server
from tests.edge_runtime.some_texts import write_text_bundle


@pytest.fixture
def run():
    """Runs a scenario; afterwards no thread of a session is left."""

    def whole(scenario: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(100):
                await scenario()

        before = set(threading.enumerate())
        asyncio.run(bounded())
        left = [one for one in set(threading.enumerate()) - before if one.name == "session"]
        for thread in left:
            thread.join(30)
        assert not [thread for thread in left if thread.is_alive()]

    return whole


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return TextModel.load(write_text_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def server(gate):
    with hostile_server(gate) as running:
        yield running


@pytest.fixture
def opened(model, server):
    def opening(**settings):
        return AsyncTextGenerator.open(
            model, server.url, codec="fp32", **{"retry": RETRY, **settings}
        )

    return opening


@pytest.fixture
def expected(model):
    """What the synchronous generator says, on a server of its own."""
    with (
        hostile_server(Gate()) as server,
        TextGenerator.open(model, server.url, codec="fp32", retry=RETRY) as llm,
    ):
        yield llm

"""What the tests of the asynchronous twins share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest


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

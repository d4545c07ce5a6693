"""A trunk that a test holds up where it wants."""

from __future__ import annotations

import asyncio
import threading

__all__ = ["Gate"]


class Gate:
    """Answers while it is open; a script for ``hostile_server``.

    Attributes:
        held: Set when an answer is held up.
    """

    def __init__(self) -> None:
        self.held = threading.Event()
        self._open = threading.Event()
        self._open.set()

    def close(self) -> None:
        self.held.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def until_held(self) -> None:
        assert await asyncio.to_thread(self.held.wait, 30)

    def __call__(self, peer) -> None:
        peer.welcome()
        while True:
            forward = peer.forward()
            if not self._open.is_set():
                self.held.set()
                assert self._open.wait(60)
            peer.reply(forward)

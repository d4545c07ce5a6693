"""The local API in a process of its own, as people start it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import httpx
import openai

from tests.servers import TrunkServer

__all__ = ["ENDLESS", "ApiServer", "await_sessions", "running_api"]

# Each of its 128 texts says one word again and again, a thousand times: minutes on any machine.
ENDLESS = {
    "model": "demo",
    "prompt": ["The"] * 8,
    "n": 16,
    "max_tokens": 10**6,
    "temperature": 0,
    "extra_body": {"repetition_penalty": 0.01},
}


class ApiServer:
    """``lambda-split api`` on a free loopback port."""

    def __init__(self, *arguments: str) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by close()
        command = [sys.executable, "-m", "lambda_split.cli", "api", "--threads", "1"]
        self._process = subprocess.Popen(
            [*command, "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        line = self._process.stdout.readline()
        match = re.fullmatch(r"listening on (http://\S+)\n", line)
        assert match, f"stdout: {line!r}, log: {self.log()}"
        self.url = match[1]
        self.root = self.url.removesuffix("/v1")

    def client(self, **settings: object) -> openai.OpenAI:
        defaults = {"base_url": self.url, "api_key": "none", "max_retries": 0}
        return openai.OpenAI(**{**defaults, **settings})

    def state(self, model: str = "demo") -> dict[str, int]:
        """How busy a model is."""
        states = httpx.get(f"{self.root}/health", timeout=60).json()["models"]
        return next(state for state in states if state["id"] == model)

    def await_idle(self, model: str = "demo") -> None:
        deadline = time.monotonic() + 60
        while self.state(model)["busy"]:
            assert time.monotonic() < deadline, "a session is never free again"
            time.sleep(0.02)

    def log(self) -> str:
        # The server writes at the file's position, which it shares with us: do not move that.
        descriptor = self._log.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(120)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()


def await_sessions(trunk: TrunkServer, number: int) -> None:
    """Wait until a trunk has so many sessions; it must run with ``--metrics-port 0``."""
    deadline = time.monotonic() + 60
    while (found := trunk.metric("lambda_split_sessions_open")) != number:
        assert time.monotonic() < deadline, f"{found} sessions"
        time.sleep(0.05)


@contextlib.contextmanager
def running_api(*arguments: str) -> Iterator[ApiServer]:
    server = ApiServer(*arguments)
    try:
        yield server
    finally:
        server.close()

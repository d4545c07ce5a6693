"""A trunk service in a process of its own, which tests may kill and start again."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from typing import IO

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["TrunkServer", "free_port", "serving"]


_chosen: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, another one each time.

    It is none of those that systems commonly hand out to whoever asks for any. One of those could
    be taken, by a connection to somewhere else or to that port itself, before its server is there,
    or while that is started again.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        if port in _chosen:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _chosen.add(port)
            return port


class TrunkServer:
    """``lambda-split serve`` on a fixed loopback port.

    Its log can be read, unless it goes to another file.
    """

    def __init__(
        self, *arguments: str, port: int | None = None, log: IO[str] | None = None
    ) -> None:
        self.port = free_port() if port is None else port
        self._arguments = arguments
        self._log = tempfile.TemporaryFile("w+") if log is None else log  # noqa: SIM115  # closed by close()
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> None:
        command = [sys.executable, "-m", "lambda_split.cli", "serve", "--threads", "1"]
        self._process = subprocess.Popen(
            [*command, *self._arguments, "--port", str(self.port)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "passive"},
        )
        line = self._process.stdout.readline()
        match = re.fullmatch(r"listening on (wss?://\S+)\n", line)
        assert match, f"stdout: {line!r}, log: {self.log()}"
        self.url = match[1]

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(180)
        self._process.stdout.close()
        return code

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self) -> str:
        if not self._log.readable():
            return ""
        # The server writes at the file's position, which it shares with us: do not move that.
        descriptor = self._log.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()

    def metric(self, name: str, **labels: str) -> float:
        """A sample of its metrics; it must run with ``--metrics-port 0``."""
        deadline = time.monotonic() + 60
        while not (ports := re.findall(r"metrics on port (\d+)", self.log())):
            assert time.monotonic() < deadline, self.log()  # its log is written by a thread
            time.sleep(0.05)
        (port,) = ports
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:  # loopback
            families = list(text_string_to_metric_families(answer.read().decode()))
        (value,) = [
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return float(value)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self._log.close()


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[TrunkServer]:
    server = TrunkServer(*arguments)
    try:
        server.start()
        yield server
    finally:
        server.close()

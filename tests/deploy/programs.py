"""Programs of the distribution, run with the configuration files of ``deploy/``."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

__all__ = ["DEPLOY", "adapted", "api", "body", "find", "running", "until"]

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"
_PACKAGES = {"promtool": "prometheus"}
_T = TypeVar("_T")


def find(name: str) -> str:
    """A program's path; the test is skipped where it is not installed."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed: apt-get install {_PACKAGES.get(name, name)}")
    return path


def adapted(name: str, folder: pathlib.Path, replacements: dict[str, object]) -> pathlib.Path:
    """A copy of a shipped file with other addresses and paths, all of which it must have."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    for old, new in replacements.items():
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, str(new))
    copy = folder / name
    copy.write_text(text, encoding="utf-8")
    return copy


@contextlib.contextmanager
def running(*command: object, log: pathlib.Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is ended with the block, with all that it started."""
    with (
        log.open("wb") as output,
        subprocess.Popen([str(word) for word in command], stdout=output, stderr=output) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def until(found: Callable[[], _T | None], *, log: pathlib.Path, patience_s: float = 120) -> _T:
    """Wait for something that is not None; fails with the program's log where it does not come."""
    deadline = time.monotonic() + patience_s
    while (value := found()) is None:
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.05)
    return value


def body(url: str) -> bytes | None:
    """What is at an HTTP address, if anything answers there well."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - loopback
            data: bytes = answer.read()
            return data
    except (OSError, urllib.error.URLError):
        return None


def api(url: str, path: str, **query: str) -> Any:
    """The data of a good answer of Prometheus' HTTP API."""
    found = body(f"{url}/api/v1/{path}?{urllib.parse.urlencode(query)}")
    assert found is not None, (path, query)
    answer = json.loads(found)
    assert answer["status"] == "success", answer
    return answer["data"]

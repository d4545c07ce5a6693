"""A device process, seen from the benchmark."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from bench.orders import Device, Generate, Generated, Ready
from lambda_split.commands.processes import running
from lambda_split.errors import ProcessFailed

__all__ = ["DeviceProcess", "device_process"]

_Answer = TypeVar("_Answer", Ready, Generated)


class DeviceProcess:
    """Takes orders."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def generate(self, order: Generate) -> Generated:
        """Have an order carried out.

        Raises:
            ProcessFailed: the device failed, and has said why on stderr.
        """
        return self.ask(order, Generated)

    def ask(self, message: Device | Generate, answer: type[_Answer]) -> _Answer:
        """Send an object and wait for the answer; errors as :meth:`generate`."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise ProcessFailed("the device side")
        try:
            stdin.write(msgspec.json.encode(message).decode() + "\n")
            stdin.flush()
            return msgspec.json.decode(stdout.readline(), type=answer)
        except (OSError, msgspec.DecodeError) as error:
            raise ProcessFailed("the device side") from error


@contextlib.contextmanager
def device_process(device: Device) -> Iterator[DeviceProcess]:
    """Start a device inside a ``with`` block.

    Raises:
        ProcessFailed: it could not load or connect, and has said why on stderr.
    """
    with running("bench.device") as process:
        found = DeviceProcess(process)
        found.ask(device, Ready)
        yield found

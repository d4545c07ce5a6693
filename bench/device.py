"""The device side of a benchmark, in a process of its own: ``python -m bench.device``.

It reads one object a line from stdin: the device to be, then orders; it answers each on stdout. The
process holds what a real device would, so that its memory is a device's: never torch, and for
``cloud-only`` not even onnxruntime.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Protocol

import msgspec

from bench.orders import CloudOnly, Device, EdgeOnly, Generate, Generated, Ready
from lambda_split.errors import LambdaSplitError

__all__ = ["main"]


class _Generating(Protocol):
    def generate(self, order: Generate) -> Generated: ...


def _open(setup: Device, stack: contextlib.ExitStack) -> _Generating:
    if isinstance(setup, CloudOnly):
        from bench.cloud_device import cloud_device

        return stack.enter_context(cloud_device(setup))
    if isinstance(setup, EdgeOnly):
        from bench.edge_device import EdgeDevice

        return EdgeDevice(setup)
    from bench.split_device import split_device

    return stack.enter_context(split_device(setup))


def _answer(message: Ready | Generated) -> None:
    sys.stdout.write(msgspec.json.encode(message).decode() + "\n")
    sys.stdout.flush()


def main() -> int:
    """Carry out orders until there are no more."""
    try:
        with contextlib.ExitStack() as stack:
            setup = sys.stdin.readline()
            if not setup:
                return 0  # whoever started it was ended in that moment
            device = _open(msgspec.json.decode(setup, type=Device), stack)
            _answer(Ready())
            for line in sys.stdin:
                _answer(device.generate(msgspec.json.decode(line, type=Generate)))
    except LambdaSplitError as error:
        sys.stderr.write(f"lambda-split: {error}\n")
        return 1
    except BrokenPipeError:
        # Whoever started it is gone. Point stdout elsewhere for the interpreter's flush at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

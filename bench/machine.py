"""What figures were measured on, without names or paths."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import re

import msgspec

import lambda_split

__all__ = ["Machine", "this_machine"]

_LIBRARIES = ("torch", "transformers", "onnxruntime", "numpy", "websockets")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine and what runs on it.

    Attributes:
        system: Operating system and architecture.
        processor: The processor's name.
        cores: Of its processors.
        memory: Bytes.
        python: Its version.
        libraries: Versions of those that matter.
    """

    system: str
    processor: str
    cores: int
    memory: int
    python: str
    libraries: dict[str, str]

    def __str__(self) -> str:
        return (
            f"{self.processor}, {self.cores} cores, {self.memory / 1e9:.0f} GB, {self.system}, "
            f"Python {self.python}, "
            + ", ".join(f"{name} {version}" for name, version in self.libraries.items())
        )


def this_machine() -> Machine:
    """The one that this runs on."""
    import psutil

    versions = {"lambda-split": lambda_split.__version__}
    versions |= {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
        python=platform.python_version(),
        libraries=versions,
    )


def _processor() -> str:
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()

"""What an emulated link is like, and how to say it in a line."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lambda_split.errors import UsageError

__all__ = ["LinkSettings"]

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_BYTES_PER_S = {"kbit": 1e3 / 8, "Mbit": 1e6 / 8, "Gbit": 1e9 / 8}


@dataclass(frozen=True, kw_only=True)
class LinkSettings:
    """What a link is like: seconds, and bytes a second, without a limit where infinite.

    Attributes:
        rtt: Both ways together.
        jitter: The most by which a packet is late.
        up: Rate towards the server.
        down: Rate from it.
        queue: What may wait to be sent, as seconds at the rate.
        stall: How long nothing leaves, each time.
        stall_every: From one stall to the next.
        cut_every: From one cut to the next.
    """

    rtt: float = 0.0
    jitter: float = 0.0
    up: float = math.inf
    down: float = math.inf
    queue: float = 0.2
    stall: float = 0.0
    stall_every: float = math.inf
    cut_every: float = math.inf

    @classmethod
    def parse(cls, text: str) -> LinkSettings:
        """Read a description such as ``rtt=60ms,up=20Mbit,down=50Mbit``.

        Raises:
            UsageError: it is none, and why.
        """
        try:
            return cls._parse(text)
        except ValueError as error:
            raise UsageError(f"the link {text!r}: {error}") from error

    @classmethod
    def _parse(cls, text: str) -> LinkSettings:
        values: dict[str, float] = {}
        seen: set[str] = set()
        for item in filter(None, text.split(",")):
            name, _, value = item.partition("=")
            if name in seen:
                raise ValueError(f"{name} is given twice")
            seen.add(name)
            if name in {"up", "down"}:
                values[name] = _quantity(value, _BYTES_PER_S)
            elif name in {"rtt", "jitter", "queue"}:
                values[name] = _quantity(value, _SECONDS)
            elif name == "cut":
                values["cut_every"] = _quantity(value, _SECONDS)
            elif name == "stall":
                length, _, every = value.partition("/")
                values |= {
                    "stall": _quantity(length, _SECONDS),
                    "stall_every": _quantity(every, _SECONDS),
                }
            else:
                raise ValueError(
                    f"a link has no {name!r}: it has rtt, jitter, up, down, queue, stall and cut, "
                    "as in rtt=80ms,up=20Mbit"
                )
        settings = cls(**values)
        if not settings.stall < settings.stall_every or not settings.cut_every:
            raise ValueError("stalls must be shorter than the time between them, and cuts apart")
        if not (settings.up and settings.down):
            raise ValueError("a rate must be more than 0")
        return settings


def _quantity(text: str, units: dict[str, float]) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]+)", text)
    if match is None or match[2] not in units:
        raise ValueError(f"{text!r} is not a number with one of {', '.join(units)}")
    return float(match[1]) * units[match[2]]

"""What was measured, as it is stored: ``results.json``, typed and versioned."""

from __future__ import annotations

from typing import Final

import msgspec

from bench.cases import Case
from bench.machine import Machine
from bench.orders import Cost
from bench.settings import BenchSettings

__all__ = ["SCHEMA", "Bytes", "Growth", "GrowthPoint", "Measurement", "Model", "Results", "Run"]

SCHEMA: Final = 1


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """Whose figures these are.

    Attributes:
        id: Its name, never a path.
        fingerprint: The checkpoint's identity.
        hidden_size: Width of the hidden states.
        layer_count: Decoder layers.
        max_positions: Positions of a session.
    """

    id: str
    fingerprint: str
    hidden_size: int
    layer_count: int
    max_positions: int


class Bytes(msgspec.Struct, frozen=True):
    """Bytes that crossed the socket, WebSocket's framing included, TCP's headers not."""

    up: int
    down: int

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(self.up + other.up, self.down + other.down)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One generation.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        new_tokens: Tokens that were made, at least 2.
        first: What the first of them cost.
        rest: What the others cost together.
        socket: What crossed meanwhile.
    """

    prompt_tokens: int
    new_tokens: int
    first: Cost
    rest: Cost
    socket: Bytes

    @property
    def tokens_per_s(self) -> float:
        """Speed after the first token."""
        return (self.new_tokens - 1) / self.rest.seconds


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """The generations of one case.

    Attributes:
        case: What was measured.
        runs: One after another.
        handshake: What crossed before the first of them: the upgrade request, hello and welcome.
        device_peak_rss: The most memory of the device's process, in bytes.
        server_peak_rss: The same of the server's; None where it is not ours.
    """

    case: Case
    runs: tuple[Run, ...]
    handshake: Bytes
    device_peak_rss: int
    server_peak_rss: int | None


class GrowthPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The next tokens at one size of the context.

    Attributes:
        context: Positions before them.
        tokens: How many they were.
        cost: Of all of them.
        socket: What crossed for them.
    """

    context: int
    tokens: int
    cost: Cost
    socket: Bytes


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """What the next token costs as the context grows."""

    case: Case
    points: tuple[GrowthPoint, ...]


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        schema: Version of this layout.
        settings: What was asked for.
        machine: Where it was measured.
        model: Of what.
        measurements: Of the cases that are finished.
        growths: The same, of growing contexts.
    """

    schema: int = SCHEMA
    settings: BenchSettings
    machine: Machine
    model: Model
    measurements: tuple[Measurement, ...] = ()
    growths: tuple[Growth, ...] = ()

    @property
    def finished(self) -> frozenset[Case]:
        """The cases that are measured."""
        measured = {each.case for each in self.measurements}
        return frozenset(measured | {each.case for each in self.growths})

    def adding(self, found: Measurement | Growth) -> Results:
        """The same with one more case."""
        if isinstance(found, Growth):
            return msgspec.structs.replace(self, growths=(*self.growths, found))
        return msgspec.structs.replace(self, measurements=(*self.measurements, found))

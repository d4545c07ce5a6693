"""What the device keeps of what it sent, so that it can send it again."""

from __future__ import annotations

from lambda_split.wire.codecs import Encoded
from lambda_split.wire.frames import Codec

__all__ = ["SentRows"]


class SentRows:
    """The rows that were sent, as they went over the wire, one for each position.

    A row is appended once and never encoded again, so that a replay sends the same bytes.
    """

    def __init__(self, codec: Codec, width: int) -> None:
        self._codec = codec
        self._row_bytes = width * codec.value_bytes
        self._rows = bytearray()
        self._exponents = bytearray()  # int8 each, 0 for unscaled rows

    @property
    def length(self) -> int:
        """Positions held."""
        return len(self._exponents)

    def append(self, start: int, tokens: int, encoded: Encoded) -> None:
        """Cut back to ``start`` and append a chunk."""
        self.truncate(start)
        split = tokens if encoded.scaled else 0
        self._exponents += encoded.payload[:split] if encoded.scaled else bytes(tokens)
        self._rows += memoryview(encoded.payload)[split:]

    def truncate(self, length: int) -> None:
        """Forget the positions from ``length`` on."""
        del self._exponents[length:]
        del self._rows[length * self._row_bytes :]

    def read(self, start: int, tokens: int) -> Encoded:
        """The payload of consecutive positions."""
        exponents = bytes(self._exponents[start : start + tokens])
        rows = bytes(self._rows[start * self._row_bytes : (start + tokens) * self._row_bytes])
        scaled = any(exponents)
        return Encoded(exponents + rows if scaled else rows, scaled)

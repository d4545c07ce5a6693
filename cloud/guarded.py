"""A WebSocket connection that takes no work for nothing from its peer.

The library answers pings and takes fragments as fast as they come, in the event loop that all
connections share: a peer that sends nothing but tiny frames could keep that loop to itself, and one
that does not read the pongs would have the server hold them. Frames of that kind are few in honest
traffic, so they are counted, and a peer that sends too many of them is cut off.

So is one that goes on before its request was answered, although RFC 6455 (section 4.1) has it wait:
the library would judge what follows first, and then trip over the answer.
"""

from __future__ import annotations

import logging
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import Event

__all__ = ["GuardedConnection"]

_logger = logging.getLogger(__name__)

# Honest devices ping every 20 s, and send long messages whole or in pieces of some kilobytes.
_BURST = 200
_PER_S = 20.0
_SMALL_BYTES = 512
# Between such pieces of what was received it is seen whether the peer is to be cut off: each may
# hold hundreds of frames. A token's frame is a few of them, which costs it some microseconds.
_SLICE_BYTES = 2 * 1024
_END_OF_REQUEST = b"\r\n\r\n"


class GuardedConnection(ServerConnection):
    """A server's end of a connection that counts the frames that bring nothing.

    Attributes:
        was_cut_off: Whether that was done, for any of this module's reasons.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # the library's own
        super().__init__(*args, **kwargs)
        self.was_cut_off = False
        self._allowed = float(_BURST)
        self._counted_at = self.loop.time()
        self._request_tail = b""  # in which the end of the request may have begun

    def data_received(self, data: bytes) -> None:
        """Take what came, piece by piece: one read may hold tens of thousands of frames."""
        for begin in range(0, len(data), _SLICE_BYTES):
            piece = data[begin : begin + _SLICE_BYTES]
            if self.response is None and self._is_early(piece):
                self._cut_off("it did not wait for the answer to its request")
            if self.transport.is_closing():
                return
            super().data_received(piece)

    def _is_early(self, piece: bytes) -> bool:
        """Whether there is something behind a request that has no answer yet."""
        if self.request is not None:
            return True
        seen = self._request_tail + piece
        self._request_tail = seen[1 - len(_END_OF_REQUEST) :]
        _, end, behind = seen.partition(_END_OF_REQUEST)
        return bool(end and behind)

    def process_event(self, event: Event) -> None:
        """Take a frame, or the request."""
        if isinstance(event, Frame) and _brings_nothing(event):
            self._spend()
        super().process_event(event)

    def _spend(self) -> None:
        now = self.loop.time()
        refilled = self._allowed + (now - self._counted_at) * _PER_S
        self._allowed = min(float(_BURST), refilled) - 1.0
        self._counted_at = now
        if self._allowed < 0 and not self.transport.is_closing():
            self._cut_off("too many pings or tiny fragments")

    def _cut_off(self, reason: str) -> None:
        self.was_cut_off = True
        _logger.info("cut a connection off: %s", reason)
        self.transport.abort()


def _brings_nothing(frame: Frame) -> bool:
    """Whether it is a control frame, or a small piece of a message that is not its last."""
    if frame.opcode not in DATA_OPCODES:
        return True
    return not frame.fin and len(frame.data) < _SMALL_BYTES

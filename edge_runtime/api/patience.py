"""HTTP connections on which a request has to come in time.

Uvicorn waits for a request's head without end, and connections are bounded in number: who opened
them and said nothing, or a byte now and then, would keep all others out.

It also stops reading where a client sends more before it is answered, and would then not notice
that the client goes away.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HEAD_TIMEOUT_S", "ImpatientProtocol"]

HEAD_TIMEOUT_S: Final = 10.0
_MOST_AHEAD: Final = 64 * 1024  # bytes; requests that generate are not for sending ahead of answers


class ImpatientProtocol(H11Protocol):
    """Closes connections where no head of a request comes, at first or after an answer.

    For a body's time there is :func:`edge_runtime.api.responding.read_object`.
    """

    _silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Give the first request its time."""
        super().connection_made(transport)
        self._expect_request()

    def on_response_complete(self) -> None:
        """Give the next request its time."""
        answered = self.cycle
        super().on_response_complete()
        if self.cycle is answered:  # the next one was not there already
            self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is expected any more."""
        super().connection_lost(exc)
        self._stop_expecting()

    def handle_events(self) -> None:
        """Go on reading during an answer, as much as is kept of requests that come too early."""
        super().handle_events()
        if self.flow.read_paused and self.conn.their_state is h11.DONE:
            ahead, _ended = self.conn.trailing_data
            if len(ahead) > _MOST_AHEAD:
                self.transport.close()
            else:
                self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:
        """Say that it is no HTTP; once an answer was begun, there is no place to say so."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            super().send_400_response(msg)
        else:
            self.transport.close()

    def _expect_request(self) -> None:
        self._stop_expecting()
        self._silence = self.loop.call_later(HEAD_TIMEOUT_S, self._end_silence, self.cycle)

    def _stop_expecting(self) -> None:
        if self._silence is not None:
            self._silence.cancel()

    def _end_silence(self, before: Any) -> None:  # noqa: ANN401  # uvicorn's, which has no public name
        if self.cycle is before:
            self.transport.close()

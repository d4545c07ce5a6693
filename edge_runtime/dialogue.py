"""What a session of either kind says over a link: the handshake, and one answer after another."""

from __future__ import annotations

import time
from typing import Any, TypeVar

from edge_runtime.link import Link
from edge_runtime.stats import Meter
from lambda_split.errors import ServerDraining, UnexpectedMessage
from lambda_split.wire.in_flight import Rejected
from lambda_split.wire.messages import Welcome
from lambda_split.wire.sides import Answer, DeviceSide

__all__ = ["next_answer", "shake_hands"]

_Answer = TypeVar("_Answer", bound=Answer)


def shake_hands(link: Link, session: DeviceSide[Any, Any], timeout_s: float) -> Welcome:
    """Say hello and wait for the welcome; the link is closed where none comes.

    Raises:
        Refused: the handshake failed.
        ServerError: the server is shutting down, or in trouble.
        ProtocolError: the server broke the protocol.
        RemoteError: the server objected in a way that this version does not know.
        ConnectionLost: the connection broke, or the answer took too long.
    """
    try:
        return _welcome(link, session, timeout_s)
    except BaseException:
        link.abandon()
        raise


def _welcome(link: Link, session: DeviceSide[Any, Any], timeout_s: float) -> Welcome:
    link.send(session.hello(), session.receive_text)
    message = link.receive(timeout_s)
    if not isinstance(message, str):
        raise UnexpectedMessage("a binary frame", session.state.value)
    welcome = session.receive_text(message)
    if not isinstance(welcome, Welcome):
        raise ServerDraining  # a bye instead of a welcome
    return welcome


def next_answer(
    link: Link, session: DeviceSide[Any, _Answer], timeout_s: float, meter: Meter
) -> _Answer:
    """Wait for the answer to the oldest frame in flight.

    Raises:
        RequestError: the server rejected that frame; the session goes on.
        ServerError: the server ended the session.
        ProtocolError: one side broke the protocol.
        RemoteError: the server objected in a way that this version does not know.
        ConnectionLost: the connection broke, or the answer took too long.
    """
    begin = time.perf_counter()
    message = link.receive(timeout_s)
    if isinstance(message, bytes):
        frame = session.receive_binary(message)
        meter.waited(time.perf_counter() - begin, frame.micros)
        return frame
    event = session.receive_text(message)
    if isinstance(event, Rejected):
        raise event.error
    raise ServerDraining

"""A device that has nothing of the model: it sends a prompt and shows what comes back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import msgspec
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from bench.cloud_protocol import MAX_MESSAGE_BYTES, Done, Prompt
from bench.memory import peak_rss
from bench.orders import CloudOnly, Cost, Generate, Generated
from lambda_split.errors import ConnectionLost, ServerUnreachable

__all__ = ["CloudDevice", "cloud_device"]

_TIMEOUT_S = 60.0


class CloudDevice:
    """Lets the service of a whole model generate."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    def generate(self, order: Generate) -> Generated:
        """Carry out an order.

        Raises:
            ConnectionLost: the service went away, or refused.
        """
        prompt = msgspec.json.encode(Prompt(order.text, order.max_new_tokens)).decode()
        pieces: list[str] = []
        begin = first_at = time.perf_counter()
        try:
            self._socket.send(prompt)
            while isinstance(message := self._socket.recv(_TIMEOUT_S), str):
                now = time.perf_counter()
                first_at = now if not pieces else first_at
                pieces.append(message)
        except (OSError, WebSocketException) as error:
            raise ConnectionLost(str(error) or type(error).__name__) from error
        # Of a prompt that has an answer there is a first token.
        done = msgspec.json.decode(message, type=Done)
        sizes = [len(piece.encode()) for piece in pieces]
        first_s, rest_s = first_at - begin, now - first_at
        return Generated(
            prompt_tokens=done.prompt_tokens,
            new_tokens=len(pieces),
            first=Cost(
                seconds=first_s,
                link_s=max(0.0, first_s - done.first_s),
                trunk_s=done.first_s,
                bytes_up=len(prompt.encode()),
                bytes_down=sizes[0],
                round_trips=1,
            ),
            rest=Cost(
                seconds=rest_s,
                link_s=max(0.0, rest_s - done.rest_s),
                trunk_s=done.rest_s,
                bytes_down=sum(sizes[1:]) + len(message),
            ),
            peak_rss=peak_rss(),
            text="".join(pieces),
        )


@contextlib.contextmanager
def cloud_device(setup: CloudOnly) -> Iterator[CloudDevice]:
    """Connect.

    Raises:
        ServerUnreachable: there is no service.
    """
    with contextlib.ExitStack() as stack:
        try:
            socket = stack.enter_context(
                connect(
                    setup.url,
                    compression=None,
                    max_size=MAX_MESSAGE_BYTES,
                    user_agent_header=None,
                    proxy=None,
                )
            )
        except (OSError, WebSocketException) as error:
            raise ServerUnreachable(setup.url, str(error) or type(error).__name__) from error
        yield CloudDevice(socket)

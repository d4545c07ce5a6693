"""A WebSocket server on loopback that does what a test's script says, right or wrong.

Its trunk, where it behaves, has no layers: it sends back the rows that it got.
"""

import contextlib
import threading
from dataclasses import dataclass, field

import websockets.exceptions
import websockets.sync.server

from lambda_split.wire.codecs import Encoded
from lambda_split.wire.frames import Codec, Frame, FrameKind, parse_frame
from lambda_split.wire.messages import (
    ErrorMessage,
    Hello,
    Welcome,
    parse_message,
    serialize_message,
)

MAX_TOKENS = 512


@dataclass
class Peer:
    """One connection, as a script sees it.

    Attributes:
        number: 0 for the server's first connection, 1 for the next …
        forwards: What came in.
    """

    socket: websockets.sync.server.ServerConnection
    number: int
    hello: Hello | None = None
    forwards: list[Frame] = field(default_factory=list)

    def welcome(self, **changes):
        """Read the hello and accept it."""
        self.hello = parse_message(self.socket.recv())
        granted = {
            "session": f"scripted-{self.number}",
            "codec": self.hello.codecs[0],
            "max_positions": self.hello.max_positions,
            "max_chunk_tokens": 128,
            "max_in_flight": 4,
        }
        self.socket.send(serialize_message(Welcome(**{**granted, **changes})))

    def forward(self):
        """The next forward."""
        message = self.socket.recv()
        if isinstance(message, str):  # a bye
            raise websockets.exceptions.ConnectionClosedOK(None, None)
        frame = parse_frame(message, width=self.hello.hidden_size, max_tokens=MAX_TOKENS)
        self.forwards.append(frame)
        return frame

    def reply(self, forward, **changes):
        """Send a forward's last rows back."""
        values = {
            "kind": FrameKind.HIDDEN,
            "codec": forward.codec,
            "start": forward.start + forward.tokens - forward.reply,
            "tokens": forward.reply,
            "sequence": forward.sequence,
            "payload": last_rows(forward, self.hello.hidden_size).payload,
            "scaled": False,
        }
        self.socket.send(Frame(**{**values, **changes}).serialize())

    def error(self, error, sequence=None):
        """Send a typed error."""
        self.socket.send(serialize_message(ErrorMessage.from_error(error, sequence)))

    def serve(self):
        """Behave, until the device leaves."""
        while True:
            self.reply(self.forward())


def last_rows(forward, width):
    """The last ``reply`` rows of an unscaled forward."""
    assert not forward.scaled
    row = width * Codec(forward.codec).value_bytes
    return Encoded(forward.payload[len(forward.payload) - forward.reply * row :])


class HostileServer:
    """Runs ``script(peer)`` for each connection.

    Attributes:
        url: Where it listens.
        peers: All connections so far.
        faults: What scripts raised that is no closed connection; a test's server raises them.
        requests: How many asked for the upgrade.

    Answers with the HTTP ``status`` and ``headers`` instead of the upgrade; the status may be a
    function of the request's number that gives None where the upgrade is granted.
    """

    def __init__(self, script, *, status=None, headers=None, token=None, ssl=None):
        self.peers = []
        self.faults = []
        self.requests = 0
        self._script = script
        self._status = status
        self._headers = headers or {}
        self._token = token
        self._lock = threading.Lock()
        self._server = websockets.sync.server.serve(
            self._handle,
            "127.0.0.1",
            0,
            process_request=self._process_request,
            compression=None,
            max_size=None,
            ping_interval=None,
            close_timeout=5,
            ssl=ssl,
        )
        scheme = "ws" if ssl is None else "wss"
        self.url = f"{scheme}://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _process_request(self, connection, request):
        if self._token and request.headers.get("Authorization") != f"Bearer {self._token}":
            return connection.respond(401, "no")
        with self._lock:
            status = self._status(self.requests) if callable(self._status) else self._status
            self.requests += 1
        if status is None:
            return None
        response = connection.respond(status, "no")
        for name, value in self._headers.items():
            response.headers[name] = value
        return response

    def _handle(self, socket):
        with self._lock:
            peer = Peer(socket, len(self.peers))
            self.peers.append(peer)
        try:
            self._script(peer)
        except websockets.exceptions.ConnectionClosed:
            pass
        except Exception as error:
            self.faults.append(error)
            raise

    def close(self):
        self._server.shutdown()
        self._thread.join(5)


@contextlib.contextmanager
def hostile_server(script, **settings):
    server = HostileServer(script, **settings)
    try:
        yield server
    finally:
        server.close()
    assert not server.faults

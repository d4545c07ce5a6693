"""What the audit attacks is what really crosses the wire."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import serve as serve_websocket

from audit.attacks.search import SearchSettings, search
from audit.capture import Setting, Victim, capture
from audit.whole_model import load_whole
from edge_runtime import TextGenerator
from lambda_split.partition import open_checkpoint
from lambda_split.split import Split
from lambda_split.wire.codecs import decode
from lambda_split.wire.frames import FrameKind, parse_frame
from tests.servers import serving

PROMPT = [1, *range(40, 60)]
REPLY = 6


@contextlib.contextmanager
def tapped(url):
    """A relay that keeps every message; yields its URL and what went up and came down."""
    up, down = [], []

    def relay(device):
        with connect(url, compression=None, max_size=None) as trunk:

            def back():
                with contextlib.suppress(ConnectionClosed):
                    for message in trunk:
                        down.append(message)
                        device.send(message)

            thread = threading.Thread(target=back, daemon=True)
            thread.start()
            with contextlib.suppress(ConnectionClosed):
                for message in device:
                    up.append(message)
                    trunk.send(message)

    with serve_websocket(relay, "127.0.0.1", 0, compression=None, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        port = server.socket.getsockname()[1]
        yield f"ws://127.0.0.1:{port}", up, down
        server.shutdown()
        thread.join()


def states(messages, kind, width):
    """The hidden states of all frames, in order of position."""
    frames = [
        parse_frame(message, width=width, max_tokens=512)
        for message in messages
        if isinstance(message, bytes)
    ]
    assert {frame.kind for frame in frames} == {kind}
    frames.sort(key=lambda frame: frame.start)
    return np.concatenate(
        [
            decode(frame.payload, frame.codec, frame.tokens, width, scaled=frame.scaled)
            for frame in frames
        ]
    )


@pytest.mark.slow
def test_what_the_audit_attacks_is_what_crosses(checkpoint, bundle) -> None:
    folder = checkpoint("llama")
    exported = bundle("llama", 2, 1)
    width = exported.manifest.geometry.hidden_size
    with serving(str(folder), "--dtype", "float32") as server, tapped(server.url) as tap:
        url, up, down = tap
        with TextGenerator.open(exported, url, chunk_tokens=8) as generator:
            result = generator.generate(PROMPT, max_new_tokens=REPLY)
    model = load_whole(open_checkpoint(str(folder)))
    expected = capture(Victim(model, Setting(Split(2, 1)), 1.0), PROMPT, len(result.token_ids))
    assert expected.reply_ids == tuple(result.token_ids)
    sent = states(up, FrameKind.FORWARD, width)
    # fp16 has 11 bits; what is near the middle of two values may be rounded to either.
    assert sent == pytest.approx(expected.up, rel=2**-9, abs=1e-4)
    assert states(down, FrameKind.HIDDEN, width) == pytest.approx(
        expected.down, rel=2**-9, abs=1e-3
    )
    found = search(model, 2, sent, tuple(PROMPT[:1]), SearchSettings(rounding=2**-9))
    assert list(found) == [*PROMPT, *result.token_ids[:-1]]

"""A trunk whose denoiser predicts a share of the latents, in process and behind a socket."""

import numpy as np
import websockets.exceptions

from lambda_split.wire.messages import Welcome, parse_message, serialize_message
from lambda_split.wire.pictures.frames import PictureFrame, PictureFrameKind, parse_picture_frame
from lambda_split.wire.tensor_format import TensorFormat, payload_bytes

LONGEST = 1 << 20


def predict(number, sample):
    """The noise of a step."""
    return (sample * np.float32(0.1) + np.float32(number)).astype(np.float32)


def serve_zeros(peer, *, steps=None, shape=(1, 4, 16, 16), seen=None):
    """A script for ``hostile_server``: welcome, and predict zeros.

    Args:
        steps: Steps to answer before the connection is cut; None for all.
        shape: Of the latents.
        seen: Gets each frame that came in.
    """
    hello = parse_message(peer.socket.recv())
    granted = {
        "session": "s",
        "codec": hello.formats[0],
        "max_positions": hello.steps,
        "max_chunk_tokens": 1,
        "max_in_flight": 4,
    }
    peer.socket.send(serialize_message(Welcome(**granted)))
    form = TensorFormat.from_label(hello.formats[0])
    answered = 0
    while steps is None or answered < steps:
        message = peer.socket.recv()
        if isinstance(message, str):  # a bye
            raise websockets.exceptions.ConnectionClosedOK(None, None)
        frame = parse_picture_frame(message, max_payload=LONGEST)
        if seen is not None:
            seen.append((peer.number, frame))
        begins = frame.kind is PictureFrameKind.PICTURE
        answer = PictureFrame(
            kind=PictureFrameKind.NOISE,
            format=frame.format,
            step=frame.step,
            tensors=0 if begins else 1,
            sequence=frame.sequence,
            payload=b"" if begins else bytes(payload_bytes(form, shape)),
            micros=1000,
        )
        peer.socket.send(answer.serialize())
        answered += not begins

"""First and last blocks so small that a test can say what they compute, and a trunk between them.

::

    features   the mean of each 2 × 2 latents, and the time in thousandths
    embedding  the first two numbers of the pooled embedding
    skip.0     the latents
    noise      a tenth of skip.0, the mean of what the trunk gives, and the embedding's sum
"""

from dataclasses import dataclass

import msgspec
import numpy as np
import websockets.exceptions

from lambda_split.bundle import describe_files
from lambda_split.denoiser_blocks import DenoiserBlocks
from lambda_split.image_bundle import (
    ImageBundle,
    ImageGraph,
    load_image_bundle,
    write_image_manifest,
)
from lambda_split.wire.messages import Welcome, parse_message, serialize_message
from lambda_split.wire.pictures.frames import PictureFrame, PictureFrameKind, parse_picture_frame
from lambda_split.wire.tensor_codecs import decode, encode
from lambda_split.wire.tensor_format import TensorFormat
from tests.edge_runtime.pictures import some_pictures
from tests.edge_runtime.pictures.some_pictures import CHANNELS, SECOND_WIDTH, SIDE

LONGEST = 1 << 20
HALF = SIDE // 2
BLOCKS = DenoiserBlocks(
    first="unet_first",
    last="unet_last",
    input_channels=CHANNELS,
    output_channels=CHANNELS,
    reduction=2,
    skips=1,
)
VALUES = {
    "thousand": np.array(1000, np.float32),
    "axes": np.array([1, 2, 3], np.int64),
    "maps": np.array([2, 3], np.int64),
    "second": np.array([1], np.int64),
    "begin": np.array([0], np.int64),
    "end": np.array([2], np.int64),
    "tenth": np.array(0.1, np.float32),
    "zero": np.array(0, np.float32),
}


@dataclass(frozen=True)
class WantedBlocks:
    """What :func:`write_deep_bundle` may be told to do otherwise."""

    features: str = "features = Add(means, time)"
    noise: str = "noise = Add(most, sum)"
    input_channels: int = CHANNELS


def write_deep_bundle(folder, wanted=None) -> ImageBundle:
    """The bundle of ``some_pictures`` with blocks of a denoiser."""
    wanted = WantedBlocks() if wanted is None else wanted
    manifest = some_pictures.write_bundle(folder).manifest
    some_pictures._save(
        f"graph (float[B,{CHANNELS},h,w] latents, float[B] timesteps, "
        f"float[B,{SECOND_WIDTH}] pooled) => (float[B,{CHANNELS},i,j] features, "
        f"float[B,2] embedding, float[B,{CHANNELS},h,w] skip0) {{"
        " thousandths = Div(timesteps, thousand)\n time = Unsqueeze(thousandths, axes)\n"
        " means = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (latents)\n"
        f" {wanted.features}\n embedding = Slice(pooled, begin, end, second)\n"
        " skip0 = Identity(latents) }",
        VALUES,
        folder / "unet_first" / "model.onnx",
    )
    some_pictures._save(
        f"graph (float[B,{CHANNELS},i,j] features, float[B,2] embedding, "
        f"float[B,{CHANNELS},h,w] skip0) => (float[B,{CHANNELS},h,w] noise) {{"
        " share = Mul(skip0, tenth)\n mean = ReduceMean <keepdims = 1> (features, maps)\n"
        " most = Add(share, mean)\n flat = ReduceSum <keepdims = 0> (embedding, second)\n"
        f" sum = Unsqueeze(flat, axes)\n {wanted.noise} }}",
        VALUES,
        folder / "unet_last" / "model.onnx",
    )
    between = {"embedding": "embedding", "skip.0": "skip0"}
    first = {"latents": "latents", "timesteps": "timesteps", "pooled": "pooled"}
    graphs = {
        "unet_first": ImageGraph(
            file="unet_first/model.onnx",
            weights="fp32",
            inputs=first,
            outputs={"features": "features", **between},
        ),
        "unet_last": ImageGraph(
            file="unet_last/model.onnx",
            weights="fp32",
            inputs={"features": "features", **between},
            outputs={"noise": "noise"},
        ),
    }
    changed = msgspec.structs.replace(
        manifest,
        split="deep",
        blocks=msgspec.structs.replace(BLOCKS, input_channels=wanted.input_channels),
        graphs={**manifest.graphs, **graphs},
        files={**manifest.files, **describe_files(folder, [one.file for one in graphs.values()])},
    )
    write_image_manifest(folder, changed)
    return load_image_bundle(folder)


def features_of(latents, timestep):
    """What the first blocks send: (n, C, H, W) -> (n, C, H / 2, W / 2)."""
    rows, channels, height, width = latents.shape
    # (n, C, H, W) -> (n, C, H / 2, 2, W / 2, 2)
    pairs = latents.reshape(rows, channels, height // 2, 2, width // 2, 2)
    return pairs.mean(axis=(3, 5)) + np.float32(timestep / 1000)


def noise_of(latents, returned, pooled):
    """What the last blocks predict."""
    sums = pooled[:, :2].sum(axis=1).reshape(-1, 1, 1, 1)
    return latents * np.float32(0.1) + returned.mean(axis=(2, 3), keepdims=True) + sums


def serve_twice(peer, *, steps=None, rows=2, in_flight=4, seen=None):
    """A script for ``hostile_server``: a trunk that returns twice the features.

    Args:
        steps: Steps to answer before the connection is cut; None for all.
        rows: Of each step.
        in_flight: What it grants.
        seen: Gets the number of the connection, the hello or frame, and its bytes.
    """
    text = peer.socket.recv()
    hello = parse_message(text)
    seen = [] if seen is None else seen
    seen.append((peer.number, hello, text.encode()))
    granted = {
        "session": "s",
        "codec": hello.formats[0],
        "max_positions": hello.steps,
        "max_chunk_tokens": 1,
        "max_in_flight": in_flight,
    }
    peer.socket.send(serialize_message(Welcome(**granted)))
    form = TensorFormat.from_label(hello.formats[0])
    shape = (rows, CHANNELS, HALF, HALF)
    answered = 0
    while steps is None or answered < steps:
        message = peer.socket.recv()
        if isinstance(message, str):  # a bye
            raise websockets.exceptions.ConnectionClosedOK(None, None)
        frame = parse_picture_frame(message, max_payload=LONGEST)
        seen.append((peer.number, frame, message))
        begins = frame.kind is PictureFrameKind.PICTURE
        payload = b""
        if not begins:
            payload = encode(2 * decode(frame.payload, form, shape), form)
        answer = PictureFrame(
            kind=PictureFrameKind.NOISE,
            format=form if not begins else frame.format,
            step=frame.step,
            tensors=0 if begins else 1,
            sequence=frame.sequence,
            payload=payload,
            micros=1000,
        )
        peer.socket.send(answer.serialize())
        answered += not begins
    if steps is not None:  # read the next one before the cut, so that it was on its way
        message = peer.socket.recv()
        if not isinstance(message, str):
            seen.append((peer.number, parse_picture_frame(message, max_payload=LONGEST), message))

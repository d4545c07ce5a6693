"""The split ``whole``: everything that the device computes with crosses the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.picture_formats.denoising import Asked, Receiver
from lambda_split.wire.pictures.settings import (
    PictureSettings,
    parse_settings,
    serialize_settings,
)
from lambda_split.wire.pictures.trajectory import Trajectory
from lambda_split.wire.tensor_codecs import decode
from lambda_split.wire.tensor_format import TensorFormat

__all__ = ["Recording", "record", "watch"]

Latents = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Recording:
    """One picture's messages, less their headers and the prompt's encoding.

    Attributes:
        settings: The JSON in front of the encoding, with the seed and the solver in it.
        noise: Payload of each step's answer.
        form: Their format, which the handshake names.
        channels: Of the latents, as the model's public config says.
    """

    settings: bytes
    noise: Sequence[bytes]
    form: TensorFormat
    channels: int


def record(asked: Asked, receiver: Receiver, form: TensorFormat) -> Recording:
    """What the wire carried while a picture was made."""
    channels, height, width = asked.trajectory.shape
    time_ids = asked.conditioning.time_ids
    settings = PictureSettings(
        images=1,
        height=height,
        width=width,
        context_tokens=asked.conditioning.context.shape[1],
        negative="sent",
        guidance=asked.guidance,
        time_ids=() if time_ids is None else tuple(time_ids[0].tolist()),
        denoising=asked.trajectory.denoising,
    )
    return Recording(serialize_settings(settings), receiver.payloads, form, channels)


def watch(recording: Recording, steps: int) -> Latents:
    """Go the device's way with the messages of so many steps; neither model nor prompt is needed.

    Returns:
        float32 (1, C, h, w): the picture's latents as far as these steps tell.
    """
    settings = parse_settings(recording.settings)
    assert settings.denoising is not None
    shape = (recording.channels, settings.height, settings.width)
    way = Trajectory.of(settings.denoising, 1, shape)
    before = state = way.start()
    noise = reference = way.first_reference(state)
    for step, payload in enumerate(recording.noise[:steps]):
        noise = reference = decode(payload, recording.form, (1, *shape), reference)
        before, state = state, way.after(noise, step, state)
    assert noise is not None
    return way.solver.predicted_original(noise, steps - 1, before)

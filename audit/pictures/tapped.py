"""What whoever reads the messages knows of a picture: a service, or a tapper without TLS.

Nothing here knows a prompt, a seed that did not cross, or latents: bytes of a connection and the
public model's measures go in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from audit.pictures.conditioning import read_conditioning, rows_of
from cloud.pictures.denoiser import Conditioning
from lambda_split.errors import FrameLengthMismatch, MessageMalformed, PositionGap
from lambda_split.wire.pictures.frames import PictureFrame, PictureFrameKind, parse_picture_frame
from lambda_split.wire.pictures.layout import DenoiserGeometry, inner_shapes
from lambda_split.wire.pictures.settings import PictureSettings, parse_settings
from lambda_split.wire.pictures.trajectory import Trajectory
from lambda_split.wire.tensor_codecs import decode
from lambda_split.wire.tensor_format import TensorFormat, payload_bytes

__all__ = ["TappedPicture", "read_messages", "watch"]

Floats = npt.NDArray[np.float32]


@dataclass(eq=False)
class TappedPicture:
    """One picture, as far as its messages were read.

    Attributes:
        settings: Of the picture.
        tensors: Its conditioning: context, then pooled output where there is one.
        channels: Of the latents, as the model's public config says.
        form: Of what the steps carry; None before the first one.
        features: With the split ``deep``: what each step sent, float32 (2, channels, h, w) of the
            prompt and the negative prompt.
        answers: What each step brought back, as it crossed.
    """

    settings: PictureSettings
    tensors: list[Floats] = field(repr=False)
    channels: int
    form: TensorFormat | None = None
    features: dict[int, Floats] = field(default_factory=dict, repr=False)
    answers: dict[int, bytes] = field(default_factory=dict, repr=False)

    @property
    def context(self) -> Floats:
        """The prompt's encoding, float32 (tokens, width)."""
        first: Floats = self.tensors[0][0]
        return first

    @property
    def conditioning(self) -> Conditioning:
        """What the denoiser is told: the prompt's row, and the negative prompt's."""
        return rows_of(self.settings, self.tensors)


def read_messages(
    up: Iterable[bytes], down: Iterable[bytes], geometry: DenoiserGeometry
) -> list[TappedPicture]:
    """Read the binary messages of one connection.

    Args:
        up: To the service, in order.
        down: To the device, in order.
        geometry: Of the denoiser.

    Returns:
        The pictures, in order.

    Raises:
        ProtocolError: a message is malformed, or answers none.
        NonFinite: a tensor holds NaN or infinity.
    """
    pictures: list[TappedPicture] = []
    asked: dict[int, TappedPicture] = {}  # by sequence
    for message in up:
        frame = _parse(message)
        if frame.kind is PictureFrameKind.PICTURE:
            pictures.append(_begun(frame, geometry))
        elif frame.kind is PictureFrameKind.STEP and pictures:
            _note_step(pictures[-1], frame, geometry)
        else:
            raise MessageMalformed(f"a frame of kind {frame.kind} before any picture")
        asked[frame.sequence] = pictures[-1]
    for message in down:
        frame = _parse(message)
        if frame.kind is not PictureFrameKind.NOISE or frame.sequence not in asked:
            raise MessageMalformed(f"a frame of kind {frame.kind} that answers none")
        if frame.tensors:
            asked[frame.sequence].answers[frame.step] = bytes(frame.payload)
    return pictures


def watch(picture: TappedPicture, steps: int) -> Floats:
    """Go the device's way with the messages of so many steps of the split ``whole``.

    Neither model nor prompt is needed.

    Returns:
        float32 (1, C, h, w): the picture's latents as far as these steps tell; after the last one
        those that the device ends with.

    Raises:
        MessageMalformed: it is a picture of the split ``deep``.
        PositionGap: the answer to one of these steps was not read.
        FrameLengthMismatch: it has another length than the settings say.
        SchedulerUnsupported: a solver that is not known here.
    """
    settings, form = picture.settings, picture.form
    if settings.denoising is None or form is None:
        raise MessageMalformed("no steps of the split 'whole' were read")
    shape = (picture.channels, settings.height, settings.width)
    way = Trajectory.of(settings.denoising, 1, shape)
    before = state = way.start()
    noise = state.sample
    reference = way.first_reference(state)
    for step in range(steps):
        if step not in picture.answers:
            raise PositionGap(step, len(picture.answers))
        noise = reference = _decode(picture.answers[step], form, (1, *shape), reference)
        before, state = state, way.after(noise, step, state)
    if steps == way.solver.steps:
        return state.sample
    return way.solver.predicted_original(noise, steps - 1, before)


def _parse(message: bytes) -> PictureFrame:
    return parse_picture_frame(message, max_payload=len(message))


def _begun(frame: PictureFrame, geometry: DenoiserGeometry) -> TappedPicture:
    payload = memoryview(frame.payload)
    settings = parse_settings(payload[: frame.settings_bytes])
    geometry.check(settings, deep=settings.denoising is None)
    tensors = read_conditioning(settings, payload[frame.settings_bytes :], frame.format, geometry)
    return TappedPicture(settings, tensors, geometry.channels)


def _note_step(picture: TappedPicture, frame: PictureFrame, geometry: DenoiserGeometry) -> None:
    picture.form = frame.format
    if picture.settings.denoising is None and geometry.deep is not None:
        shape, _ = inner_shapes(picture.settings, geometry.deep)
        picture.features[frame.step] = _decode(frame.payload, frame.format, shape)


def _decode(
    payload: bytes | memoryview,
    form: TensorFormat,
    shape: Sequence[int],
    reference: Floats | None = None,
) -> Floats:
    if len(payload) != payload_bytes(form, shape):
        raise FrameLengthMismatch(len(payload), payload_bytes(form, shape))
    return decode(payload, form, shape, reference)

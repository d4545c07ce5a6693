"""What crosses the wire while pictures are made, message by message.

Messages are those of ``docs/protocol-images.md``, less the handshake: header, settings,
conditioning, steps and answers, laid out by the wire's own code. The trunk's compute time, which a
header also has, is 0 here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from audit.pictures.asking import Asked
from audit.pictures.denoising import chunks, synchronized
from audit.pictures.model import PublicModel
from cloud.pictures.denoiser import Conditioning
from edge_runtime.pictures.guidance import Guidance
from lambda_split.errors import UsageError
from lambda_split.partition.pipelines.deep import FirstBlocks, LastBlocks, Told
from lambda_split.wire.pictures.frames import PictureFrame, PictureFrameKind
from lambda_split.wire.pictures.settings import PictureSettings, serialize_settings
from lambda_split.wire.tensor_codecs import decode, encode
from lambda_split.wire.tensor_format import TensorFormat

__all__ = ["Session", "deep_sessions", "told_of", "whole_sessions"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Session:
    """One picture's messages, and where it ended.

    Attributes:
        up: Messages to the service, in order.
        down: Messages to the device, in order.
        latents: What the device ends with, float32 (1, C, h, w); these never cross.
    """

    up: tuple[bytes, ...] = field(repr=False)
    down: tuple[bytes, ...] = field(repr=False)
    latents: Floats = field(repr=False)


def whole_sessions(
    model: PublicModel, pictures: Sequence[Asked], form: TensorFormat
) -> list[Session]:
    """Make pictures with the split ``whole``: steps are asked for, and noise comes back."""
    sessions = []
    receivers = synchronized(model.denoiser, pictures, form)
    for asked, receiver in zip(pictures, receivers, strict=True):
        up = [_picture(asked, asked.settings)]
        down = [_answer(asked.form, 0, 0, b"")]
        for step, payload in enumerate(receiver.payloads):
            up.append(_step(form, step, b""))
            down.append(_answer(form, step, step + 1, payload))
        sessions.append(Session(tuple(up), tuple(down), receiver.state.sample))
    return sessions


def deep_sessions(
    model: PublicModel, pictures: Sequence[Asked], form: TensorFormat
) -> list[Session]:
    """Make pictures with the split ``deep``: features cross both ways, and latents stay.

    Raises:
        UsageError: the denoiser has no such split, or the format codes differences.
    """
    if model.denoiser.deep is None or form.delta:
        raise UsageError(f"the split 'deep' is not there for {model.id} in {form.label}")
    first, last = FirstBlocks(model.denoiser.unet), LastBlocks(model.denoiser.unet)
    states = [asked.trajectory.start() for asked in pictures]
    up = [[_picture(asked, asked.deep_settings)] for asked in pictures]
    down = [[_answer(asked.form, 0, 0, b"")] for asked in pictures]
    solver = pictures[0].trajectory.solver
    for step in range(solver.steps):
        for chunk in chunks(len(pictures)):
            told = Conditioning.together([pictures[number].conditioning for number in chunk])
            scaled = [solver.scale_input(states[number].sample, step) for number in chunk]
            latents = torch.from_numpy(np.concatenate(scaled)).repeat_interleave(2, dim=0)
            asked_of = told_of(told, solver.timesteps[step])
            with torch.inference_mode():
                features, embedding, *skips = first(latents, asked_of)
            sent = [encode(rows, form) for rows in _pairs(features)]
            inner = model.denoiser.predict_inner(
                _arrived(sent, form, features), asked_of.timesteps, told
            )
            back = [encode(rows, form) for rows in _pairs(inner)]
            with torch.inference_mode():
                found = last(_arrived(back, form, inner), embedding, told.context, *skips)
            for place, number in enumerate(chunk):
                asked = pictures[number]
                noise = Guidance(asked.guidance).apply(_pairs(found)[place])
                states[number] = asked.trajectory.after(noise, step, states[number])
                up[number].append(_step(form, step, sent[place], tensors=1))
                down[number].append(_answer(form, step, step + 1, back[place]))
    return [
        Session(tuple(sent), tuple(answers), state.sample)
        for sent, answers, state in zip(up, down, states, strict=True)
    ]


def told_of(conditioning: Conditioning, timestep: float) -> Told:
    """What the denoiser's own blocks are told of pictures; all of it crosses the wire."""
    added = {"text_embeds": conditioning.pooled, "time_ids": conditioning.time_ids}
    given = {name: tensor for name, tensor in added.items() if tensor is not None}
    timesteps = torch.full((len(conditioning.context),), timestep)
    return Told(timesteps, conditioning.context, given or None)


def _pairs(rows: torch.Tensor) -> list[Floats]:
    """(2 n, c, h, w) -> n × (2, c, h, w)."""
    return [np.asarray(pair.numpy(), np.float32) for pair in torch.split(rows, 2)]


def _arrived(payloads: Sequence[bytes], form: TensorFormat, sent: torch.Tensor) -> torch.Tensor:
    shape = (2, *sent.shape[1:])
    return torch.from_numpy(np.concatenate([decode(one, form, shape) for one in payloads]))


def _picture(asked: Asked, settings: PictureSettings) -> bytes:
    head = serialize_settings(settings)
    return PictureFrame(
        kind=PictureFrameKind.PICTURE,
        format=asked.form,
        step=0,
        tensors=1 if asked.conditioning.pooled is None else 2,
        sequence=0,
        payload=head + asked.payload,
        settings_bytes=len(head),
    ).serialize()


def _step(form: TensorFormat, step: int, payload: bytes, *, tensors: int = 0) -> bytes:
    return PictureFrame(
        kind=PictureFrameKind.STEP,
        format=form,
        step=step,
        tensors=tensors,
        sequence=step + 1,
        payload=payload,
    ).serialize()


def _answer(form: TensorFormat, step: int, sequence: int, payload: bytes) -> bytes:
    return PictureFrame(
        kind=PictureFrameKind.NOISE,
        format=form,
        step=step,
        tensors=1 if payload else 0,
        sequence=sequence,
        payload=payload,
    ).serialize()

"""Conversations about pictures, valid until something is changed in them."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import msgspec
import numpy as np

from lambda_split.diffusion.scheduler_config import SchedulerConfig
from lambda_split.wire.frames import MAX_U32
from lambda_split.wire.messages import PictureHello, Welcome, serialize_message
from lambda_split.wire.pictures.device_session import PictureDeviceSession
from lambda_split.wire.pictures.frames import PictureFrame, parse_picture_frame
from lambda_split.wire.pictures.layout import DenoiserGeometry, conditioning_shapes, state_shape
from lambda_split.wire.pictures.settings import Denoising, PictureSettings
from lambda_split.wire.tensor_codecs import encode
from lambda_split.wire.tensor_format import TENSOR_FORMATS, Base, TensorFormat
from tests.faults.raw import BINARY, TEXT
from tests.fuzz.conversations import Message, Speech, flipped

__all__ = ["picture_speech"]

_FP32 = TensorFormat(Base.FP32)
_FORMATS = ("fp32", "fp16", "nf4-delta", "int8-channel", "fp8-e4m3-delta")
_SOLVERS = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "TCDScheduler",  # none that there is
)
_STEPS = 3


def picture_speech(hello: PictureHello, geometry: DenoiserGeometry) -> Speech:
    """How a device talks that makes pictures by the whole denoiser.

    Args:
        hello: Its first message, but for the formats.
        geometry: The denoiser's measures.
    """
    return Speech(partial(_conversation, hello, geometry), _gently)


def _conversation(
    hello: PictureHello, geometry: DenoiserGeometry, rng: random.Random
) -> list[Message]:
    """A hello, pictures whose steps go on or bring a state, and a bye."""
    hello = msgspec.structs.replace(hello, formats=(rng.choice(_FORMATS),))
    device = PictureDeviceSession(hello)
    said = [Message(TEXT, device.hello().encode())]
    device.receive_text(_welcome(hello))
    for _ in range(rng.randint(1, 3)):
        settings = _settings(rng)
        tensors = [_normal(shape, rng) for shape in conditioning_shapes(settings, geometry)]
        conditioning = b"".join(encode(each, _FP32) for each in tensors)
        picture = device.picture(settings, conditioning, _FP32, tensors=len(tensors))
        said.append(Message(BINARY, picture))
        for step in range(rng.randint(0, _STEPS)):
            state = [
                _normal(state_shape(settings, geometry), rng) for _ in range(_state_tensors(rng))
            ]
            payload = b"".join(encode(each, _FP32) for each in state)
            asked = device.step(step, payload, tensors=len(state), answer_bytes=0)
            said.append(Message(BINARY, asked))
    said.append(Message(TEXT, device.close("done").encode()))
    return said


def _state_tensors(rng: random.Random) -> int:
    return rng.choice((0, 0, 0, 1, 2, 3))


def _settings(rng: random.Random) -> PictureSettings:
    images = rng.choice((1, 1, 2))
    return PictureSettings(
        images=images,
        prompts=rng.choice((1, images)),
        height=rng.choice((2, 4, 8)),
        width=rng.choice((2, 4, 8)),
        context_tokens=rng.randint(1, 8),
        negative=rng.choice(("none", "zeros", "sent")),
        guidance=rng.choice((0.0, 1.0, 7.5)),
        denoising=Denoising(
            scheduler=SchedulerConfig(
                class_name=rng.choice(_SOLVERS), beta_start=0.00085, beta_end=0.012
            ),
            steps=_STEPS,
            seed=rng.randrange(1 << 53),
            synchronized=rng.random() < 0.8,
        ),
    )


def _normal(shape: tuple[int, ...], rng: random.Random) -> np.ndarray:
    return np.random.default_rng(rng.randrange(1 << 30)).standard_normal(shape, np.float32)


def _gently(payload: bytes, rng: random.Random) -> bytes:
    """A frame that is still one: what is wrong with it concerns a picture or a step, if at all."""
    parsed = parse_picture_frame(payload, max_payload=len(payload))
    number = rng.choice((0, 1, rng.randint(0, 300), rng.randint(0, MAX_U32), MAX_U32))
    match rng.randrange(6):
        case 0:
            changed = replace(parsed, step=rng.choice((0, 1, 2, number)))
        case 1:
            changed = replace(parsed, tensors=number)
        case 2:
            changed = replace(parsed, micros=number)
        case 3:
            changed = replace(parsed, format=rng.choice(TENSOR_FORMATS))
        case 4:
            changed = replace(parsed, settings_bytes=min(number, len(parsed.payload)))
        case _:
            changed = _flipped(parsed, rng)
    return changed.serialize()


def _flipped(parsed: PictureFrame, rng: random.Random) -> PictureFrame:
    """Flipped bits in the tensors, or in the settings."""
    payload, at = bytes(parsed.payload), parsed.settings_bytes
    settings, tensors = payload[:at], payload[at:]
    if settings and rng.random() < 0.5:
        settings = flipped(settings, rng)
    elif tensors:
        tensors = flipped(tensors, rng)
    return replace(parsed, payload=settings + tensors)


def _welcome(hello: PictureHello) -> str:
    return serialize_message(
        Welcome(
            session="s",
            codec=hello.formats[0],
            max_positions=hello.steps,
            max_chunk_tokens=1,
            max_in_flight=1024,
        )
    )

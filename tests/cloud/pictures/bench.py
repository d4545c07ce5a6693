"""An engine of a tiny pipeline, and what a connection would ask of it."""

import numpy as np
import torch

from cloud.pictures.denoiser import Denoiser
from cloud.pictures.engine import DenoisingEngine
from cloud.pictures.works import PictureRequest
from lambda_split.diffusion.scheduler_config import SchedulerConfig
from lambda_split.wire.pictures.frames import PictureFrame, PictureFrameKind
from lambda_split.wire.pictures.handshake import AcceptedPictures
from lambda_split.wire.pictures.layout import DenoiserGeometry, conditioning_shapes, state_shape
from lambda_split.wire.pictures.server_session import PictureStart, PictureStep
from lambda_split.wire.pictures.settings import Denoising, PictureSettings, serialize_settings
from lambda_split.wire.pictures.trajectory import Trajectory
from lambda_split.wire.tensor_codecs import decode, encode
from lambda_split.wire.tensor_format import Base, TensorFormat
from tests.tiny_pipelines import build_tiny_pipeline

FP32, FP16 = TensorFormat(Base.FP32), TensorFormat(Base.FP16)
NF4_DELTA = TensorFormat(Base.NF4, delta=True)
INT8 = TensorFormat(Base.INT8, per_channel=True)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
EULER = SchedulerConfig(class_name="EulerDiscreteScheduler", **BETAS)
ANCESTRAL = SchedulerConfig(class_name="EulerAncestralDiscreteScheduler", **BETAS)
DPM = SchedulerConfig(class_name="DPMSolverMultistepScheduler", **BETAS)
STEPS = 4


class Bench:
    """An engine of a tiny pipeline's UNet, and what a connection would ask of it."""

    def __init__(self, name, **limits):
        self.pipeline = build_tiny_pipeline(name)
        self.unet = self.pipeline.unet
        config = self.unet.config
        self.denoiser = Denoiser(
            self.unet,
            device=torch.device("cpu"),
            dtype=torch.float32,
            guidance_width=config.time_cond_proj_dim,
        )
        xl = config.addition_embed_type == "text_time"
        self.geometry = DenoiserGeometry(
            channels=config.in_channels,
            context_width=config.cross_attention_dim,
            pooled_width=40 if xl else 0,
            time_ids=6 if xl else 0,
            guidance_embedding=config.time_cond_proj_dim is not None,
            deep=self.denoiser.deep,
        )
        self.engine = self.make_engine(**limits)

    def make_engine(self, *, max_sessions=4, max_rows=10_000, memory=1 << 24):
        return DenoisingEngine(
            self.denoiser,
            geometry=self.geometry,
            max_sessions=max_sessions,
            max_rows=max_rows,
            memory=memory,
        )

    def open(self, *, split="whole", form=FP32):
        return self.engine.open(accepted(split, form))

    def settings(self, **changes):
        facts = {
            "images": 1,
            "height": 6,
            "width": 8,
            "context_tokens": 5,
            "negative": "sent",
            "guidance": 5.0,
            "time_ids": (24, 32, 0, 0, 24, 32) if self.geometry.time_ids else (),
            "guidance_embedding": 7.5 if self.geometry.guidance_embedding else None,
        }
        if "timesteps" not in changes:
            facts["denoising"] = Denoising(scheduler=EULER, steps=STEPS, seed=3)
        return PictureSettings(**(facts | changes))

    def conditioning(self, settings, seed=0):
        shapes = conditioning_shapes(settings, self.geometry)
        return [normal(shape, seed + number) for number, shape in enumerate(shapes)]

    def start(self, session, settings, conditioning=None, form=FP32):
        tensors = self.conditioning(settings) if conditioning is None else conditioning
        head = serialize_settings(settings)
        payload = head + b"".join(encode(tensor, form) for tensor in tensors)
        frame = PictureFrame(
            PictureFrameKind.PICTURE, form, 0, len(tensors), 0, payload, settings_bytes=len(head)
        )
        return self.work(session, PictureStart(settings, frame))

    def asked(self, session, settings, step, tensors=(), form=FP32):
        exact = FP32 if settings.denoising is not None else form
        payload = b"".join(encode(tensor, exact) for tensor in tensors)
        frame = PictureFrame(PictureFrameKind.STEP, form, step, len(tensors), 0, payload)
        return self.work(session, PictureStep(settings, frame))

    def work(self, session, asked):
        request = PictureRequest(asked, self.geometry)
        request.read()
        return request.piece(session, 0, 1)

    def run(self, *works):
        return list(self.engine.step(works))

    def begin(self, session, settings, conditioning=None):
        (outcome,) = self.run(self.start(session, settings, conditioning))
        assert outcome.payload == b""

    def step(self, session, settings, step, tensors=(), form=FP32):
        """What a step brings: its payload, or the error raised."""
        (outcome,) = self.run(self.asked(session, settings, step, tensors, form))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome.payload

    def state(self, session):
        return self.engine._places[session].picture

    def trajectory(self, settings):
        shape = state_shape(settings, self.geometry)
        return Trajectory.of(settings.denoising, settings.images, shape[1:])

    def noise(self, payload, settings, form=FP32, reference=None):
        return decode(payload, form, state_shape(settings, self.geometry), reference)


def accepted(split="whole", form=FP32, max_latents=200, max_context=40):
    return AcceptedPictures(split, form, max_latents, max_context, max_steps=STEPS)


def normal(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)

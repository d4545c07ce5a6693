"""A small denoiser's measures, what devices and servers say of it, and sessions that are open."""

import msgspec

from lambda_split.diffusion.scheduler_config import SchedulerConfig
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.messages import PictureHello, Welcome
from lambda_split.wire.pictures.device_session import PictureDeviceSession
from lambda_split.wire.pictures.frames import PictureFrame, PictureFrameKind
from lambda_split.wire.pictures.handshake import AcceptedPictures
from lambda_split.wire.pictures.layout import DeepGeometry, DenoiserGeometry, inner_shapes
from lambda_split.wire.pictures.server_session import PictureServerSession
from lambda_split.wire.pictures.settings import Denoising, PictureSettings, serialize_settings
from lambda_split.wire.session import State
from lambda_split.wire.tensor_format import Base, TensorFormat

FP32, FP16 = TensorFormat(Base.FP32), TensorFormat(Base.FP16)
NF4_DELTA = TensorFormat(Base.NF4, delta=True)
NF4_CHANNEL = TensorFormat(Base.NF4, per_channel=True)

GEOMETRY = DenoiserGeometry(
    channels=2,
    context_width=3,
    pooled_width=2,
    time_ids=2,
    deep=DeepGeometry(input_channels=4, output_channels=6, reduction=2),
)
WHOLE = PictureSettings(
    images=1,
    height=3,
    width=5,
    context_tokens=4,
    negative="sent",
    guidance=5.0,
    time_ids=(24.0, 40.0),
    denoising=Denoising(
        scheduler=SchedulerConfig(class_name="EulerDiscreteScheduler"), steps=3, seed=7
    ),
)
DEEP = PictureSettings(
    images=1,
    height=3,
    width=5,
    context_tokens=4,
    negative="sent",
    time_ids=(24.0, 40.0),
    timesteps=(999.0, 499.0, 1.0),
)
# Two prompts' context of 4 positions, then their pooled output.
CONDITIONING_VALUES = 2 * 4 * 3 + 2 * 2
LATENT_BYTES = 4 * 2 * 3 * 5  # one float32 tensor
CONDITIONING = bytes(2 * CONDITIONING_VALUES)  # in fp16
ENTERING, LEAVING = inner_shapes(DEEP, GEOMETRY.deep)
HELLO = PictureHello(
    protocol=1,
    fingerprint="00112233",
    split="whole",
    formats=("fp32",),
    latents=15,
    context=8,
    steps=3,
)
WELCOME = Welcome(session="s", codec="fp32", max_positions=3, max_chunk_tokens=1)


def opened(
    split: str = "whole", form: TensorFormat = FP32
) -> tuple[PictureDeviceSession, PictureServerSession]:
    """Both sides after a handshake."""
    hello = msgspec.structs.replace(HELLO, split=split, formats=(form.label,))
    device, server = PictureDeviceSession(hello), PictureServerSession(GEOMETRY)
    assert server.receive_text(device.hello()) == hello
    welcome = msgspec.structs.replace(WELCOME, codec=form.label, max_in_flight=4)
    accepted = AcceptedPictures(split, form, max_latents=15, max_context=8, max_steps=3)
    assert device.receive_text(server.accept(welcome, accepted)) == welcome
    assert device.state is server.state is State.OPEN
    return device, server


def picture(settings=WHOLE, conditioning=CONDITIONING, **changes):
    """The bytes of a PICTURE in fp16, the first of its session."""
    head = serialize_settings(settings)
    facts = {
        "kind": PictureFrameKind.PICTURE,
        "format": FP16,
        "step": 0,
        "tensors": 2,
        "sequence": 0,
        "payload": head + conditioning,
        "settings_bytes": len(head),
    }
    return PictureFrame(**(facts | changes)).serialize()


def step(**changes):
    """The bytes of a STEP without tensors, the second frame of its session."""
    facts = {
        "kind": PictureFrameKind.STEP,
        "format": FP32,
        "step": 0,
        "tensors": 0,
        "sequence": 1,
        "payload": b"",
    }
    return PictureFrame(**(facts | changes)).serialize()


def begun(settings=WHOLE, split="whole", form=FP32):
    """Both sides with a picture that has begun."""
    device, server = opened(split, form)
    asked = server.receive_binary(device.picture(settings, CONDITIONING, FP16, tensors=2))
    device.receive_binary(server.reply(asked, Encoded(b""), 0))
    return device, server

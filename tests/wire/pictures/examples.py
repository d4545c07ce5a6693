"""A small denoiser's measures, and what devices and servers say of it."""

from lambda_split.diffusion.scheduler_config import SchedulerConfig
from lambda_split.wire.messages import PictureHello, Welcome
from lambda_split.wire.pictures.device_session import PictureDeviceSession
from lambda_split.wire.pictures.handshake import AcceptedPictures
from lambda_split.wire.pictures.layout import DeepGeometry, DenoiserGeometry
from lambda_split.wire.pictures.server_session import PictureServerSession
from lambda_split.wire.pictures.settings import Denoising, PictureSettings
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


def opened(
    split: str = "whole", form: TensorFormat = FP32
) -> tuple[PictureDeviceSession, PictureServerSession]:
    """Both sides after a handshake."""
    hello = PictureHello(
        protocol=1,
        fingerprint="00112233",
        split=split,
        formats=(form.label,),
        latents=15,
        context=8,
        steps=3,
    )
    device, server = PictureDeviceSession(hello), PictureServerSession(GEOMETRY)
    assert server.receive_text(device.hello()) == hello
    welcome = Welcome(
        session="s", codec=form.label, max_positions=3, max_chunk_tokens=1, max_in_flight=4
    )
    accepted = AcceptedPictures(split, form, max_latents=15, max_context=8, max_steps=3)
    assert device.receive_text(server.accept(welcome, accepted)) == welcome
    assert device.state is server.state is State.OPEN
    return device, server

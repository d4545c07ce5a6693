"""From captions to what a device asks: settings and conditioning, as they cross the wire.

``tests/audit/pictures/test_real_session.py`` holds the messages equal to those of a real device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from audit.pictures.conditioning import read_conditioning, rows_of
from audit.pictures.model import PublicModel
from cloud.pictures.denoiser import Conditioning
from edge_runtime.pictures.prompts import EncodedPrompts
from lambda_split.errors import UsageError
from lambda_split.wire.pictures.settings import Denoising, PictureSettings
from lambda_split.wire.pictures.trajectory import Trajectory
from lambda_split.wire.tensor_codecs import encode
from lambda_split.wire.tensor_format import Base, TensorFormat

__all__ = ["EXACT", "Asked", "Plan", "ask"]

Floats = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], EncodedPrompts]
EXACT = TensorFormat(Base.FP32)


@dataclass(frozen=True)
class Plan:
    """What is made.

    Attributes:
        prompts: What to show.
        seeds: Of each prompt's pictures.
        steps: Runs of the denoiser.
        guidance: Scale of classifier-free guidance, above 1.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int = 25
    guidance: float = 5.0


@dataclass(frozen=True, eq=False)
class Asked:
    """One picture of one image.

    Attributes:
        settings: As a device sends them with the split ``whole``.
        trajectory: Its way.
        form: How its conditioning crosses.
        payload: The conditioning's bytes.
        conditioning: As it arrives; two rows: of the prompt, and of the negative prompt.
    """

    settings: PictureSettings
    trajectory: Trajectory
    form: TensorFormat
    payload: bytes = field(repr=False)
    conditioning: Conditioning = field(repr=False)

    @property
    def guidance(self) -> float:
        """Scale of classifier-free guidance."""
        return self.settings.guidance

    @property
    def deep_settings(self) -> PictureSettings:
        """As a device sends them with the split ``deep``: no seed, solver or guidance."""
        return msgspec.structs.replace(
            self.settings,
            guidance=1.0,
            rescale=0.0,
            denoising=None,
            timesteps=self.trajectory.solver.timesteps,
        )


def ask(
    model: PublicModel,
    plan: Plan,
    form: TensorFormat,
    *,
    synchronized: bool = True,
    encoder: Encode | None = None,
) -> list[Asked]:
    """The pictures of a plan: each prompt with each seed, as a device asks for one picture.

    Args:
        model: What is asked.
        plan: What for.
        form: Of what the steps bring; where it is exact, so is the conditioning.
        synchronized: Whether the trunk steps with what the device decodes.
        encoder: What encodes prompts; the model's own encoders in PyTorch where None, a bundle's
            otherwise.

    Raises:
        UsageError: there is no guidance.
    """
    if plan.guidance <= 1:
        raise UsageError(f"guidance must be above 1 to be audited, not {plan.guidance}")
    encoded = (encoder or model.encode)([*plan.prompts, ""])
    sent = EXACT if form == EXACT else TensorFormat(Base.FP16)
    channels, height, width = model.shape
    sides = height * model.scale_factor, width * model.scale_factor
    negative: Literal["zeros", "sent"] = "zeros" if model.zeros else "sent"
    asked = []
    for number in range(len(plan.prompts)):
        rows = [number] if model.zeros else [number, len(plan.prompts)]
        tensors = [one[rows] for one in (encoded.context, encoded.pooled) if one is not None]
        payload = b"".join(encode(tensor, sent) for tensor in tensors)
        for seed in plan.seeds:
            denoising = Denoising(
                scheduler=model.scheduler, steps=plan.steps, seed=seed, synchronized=synchronized
            )
            settings = PictureSettings(
                images=1,
                height=height,
                width=width,
                context_tokens=encoded.context.shape[1],
                negative=negative,
                guidance=plan.guidance,
                time_ids=(*sides, 0, 0, *sides) if model.geometry.time_ids else (),
                denoising=denoising,
            )
            arrived = read_conditioning(settings, payload, sent, model.geometry)
            trajectory = Trajectory.of(denoising, 1, (channels, height, width))
            told = rows_of(settings, arrived)
            asked.append(Asked(settings, trajectory, sent, payload, told))
    return asked

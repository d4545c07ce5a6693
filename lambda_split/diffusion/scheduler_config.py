"""A pipeline's own ``scheduler_config.json``, and another solver over the same model.

The file's vocabulary is that of diffusers, whose schedulers all describe the same noise schedule
and differ in how they step through it. Only what the file itself says is kept: a solver fills in
the rest with defaults of its own (``scheduler_settings``), so that another solver chosen over the
file reads it as diffusers' ``from_config`` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from lambda_split.errors import CheckpointInvalid, SchedulerUnsupported, UsageError

__all__ = [
    "MAX_TRAIN_STEPS",
    "SOLVER_NAMES",
    "SchedulerConfig",
    "choose_solver",
    "for_stable_diffusion",
    "parse_scheduler_config",
    "with_known_solver",
]

MAX_TRAIN_STEPS = 10_000
_MAX_BYTES = 1024 * 1024
_FILE = "scheduler_config.json"

# ASCII, so that it can be written again: JSON may hold half a surrogate pair.
_Name = Annotated[str, Meta(max_length=64, pattern=r"^[ -~]*\Z")]
_TrainSteps = Annotated[int, Meta(ge=2, le=MAX_TRAIN_STEPS)]
# A smaller one leaves 1 - beta at 1 in float32, a larger one leaves no signal in one step.
_Beta = Annotated[float, Meta(ge=1e-7, le=0.999)]
_Sigma = Annotated[float, Meta(ge=1e-6, le=1e6)]
_Positive = Annotated[float, Meta(ge=1e-6, le=1e6)]


class SchedulerConfig(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a ``scheduler_config.json`` says; the fields are diffusers', and ``UNSET`` is absent.

    Attributes:
        class_name: The scheduler that the model was published with.
        lambda_min_clipped: Of log(alpha / sigma); absent where the file has minus infinity.
    """

    class_name: _Name = msgspec.field(name="_class_name")
    num_train_timesteps: _TrainSteps | UnsetType = UNSET
    beta_start: _Beta | UnsetType = UNSET
    beta_end: _Beta | UnsetType = UNSET
    beta_schedule: _Name | UnsetType = UNSET
    trained_betas: Annotated[tuple[_Beta, ...], Meta(max_length=MAX_TRAIN_STEPS)] | UnsetType = (
        UNSET
    )
    rescale_betas_zero_snr: bool | UnsetType = UNSET
    prediction_type: _Name | UnsetType = UNSET
    variance_type: _Name | UnsetType = UNSET
    timestep_spacing: _Name | UnsetType = UNSET
    timestep_type: _Name | UnsetType = UNSET
    steps_offset: Annotated[int, Meta(ge=0, le=MAX_TRAIN_STEPS)] | UnsetType = UNSET
    set_alpha_to_one: bool | UnsetType = UNSET
    clip_sample: bool | UnsetType = UNSET
    clip_sample_range: _Positive | UnsetType = UNSET
    thresholding: bool | UnsetType = UNSET
    interpolation_type: _Name | UnsetType = UNSET
    use_karras_sigmas: bool | UnsetType = UNSET
    use_exponential_sigmas: bool | UnsetType = UNSET
    use_beta_sigmas: bool | UnsetType = UNSET
    use_lu_lambdas: bool | UnsetType = UNSET
    use_flow_sigmas: bool | UnsetType = UNSET
    sigma_min: _Sigma | UnsetType = UNSET
    sigma_max: _Sigma | UnsetType = UNSET
    final_sigmas_type: _Name | UnsetType = UNSET
    algorithm_type: _Name | UnsetType = UNSET
    solver_order: Annotated[int, Meta(ge=1, le=16)] | UnsetType = UNSET
    solver_type: _Name | UnsetType = UNSET
    lower_order_final: bool | UnsetType = UNSET
    euler_at_final: bool | UnsetType = UNSET
    lambda_min_clipped: Annotated[float, Meta(ge=-100, le=100)] | UnsetType = UNSET
    original_inference_steps: Annotated[int, Meta(ge=1, le=MAX_TRAIN_STEPS)] | UnsetType = UNSET
    timestep_scaling: _Positive | UnsetType = UNSET


_EULER = "EulerDiscreteScheduler"
_EULER_ANCESTRAL = "EulerAncestralDiscreteScheduler"
_DDIM = "DDIMScheduler"
_DPM_SOLVER = "DPMSolverMultistepScheduler"
_LCM = "LCMScheduler"
_PNDM = "PNDMScheduler"

_SOLVER_CLASSES = (_EULER, _EULER_ANCESTRAL, _DDIM, _DPM_SOLVER, _LCM)
# These describe the same kind of model in the same words, so a solver can be chosen over them.
_DESCRIBED = {
    *_SOLVER_CLASSES,
    _PNDM,
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
}
# Without a word about it in the file, these clip, which is right for pixels and ruins latents.
_CLIPPING = {_DDIM, "DDPMScheduler", "TCDScheduler"}

_SECOND_ORDER = {"algorithm_type": "dpmsolver++", "solver_order": 2}
_CHOICES: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "euler": {"class_name": _EULER},
        "euler-ancestral": {"class_name": _EULER_ANCESTRAL},
        "ddim": {"class_name": _DDIM},
        "dpm++2m": {"class_name": _DPM_SOLVER, "use_karras_sigmas": False, **_SECOND_ORDER},
        "dpm++2m-karras": {"class_name": _DPM_SOLVER, "use_karras_sigmas": True, **_SECOND_ORDER},
        "lcm": {"class_name": _LCM},
    }
)
# What users call the solvers.
SOLVER_NAMES = tuple(_CHOICES)


def parse_scheduler_config(data: bytes) -> SchedulerConfig:
    """Read the bytes of a ``scheduler_config.json``.

    Fields that no solver here reads are ignored, and null counts as absent.

    Raises:
        CheckpointInvalid: it is no JSON object, or a field has a wrong type or an absurd size.
    """
    if len(data) > _MAX_BYTES:
        raise CheckpointInvalid(_FILE, f"it has more than {_MAX_BYTES} bytes")
    try:
        # Python's parser, as diffusers writes minus infinity, which JSON does not have. It arrives
        # as its name, which is no number, so it is refused wherever it is not expected.
        raw = json.loads(data, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise CheckpointInvalid(_FILE, f"it is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise CheckpointInvalid(_FILE, "it is not a JSON object")
    if raw.get("lambda_min_clipped") == "-Infinity":
        del raw["lambda_min_clipped"]
    given = {name: value for name, value in raw.items() if value is not None}
    try:
        return msgspec.convert(given, SchedulerConfig)
    except msgspec.ValidationError as error:
        raise CheckpointInvalid(_FILE, str(error)) from error


def choose_solver(config: SchedulerConfig, name: str) -> SchedulerConfig:
    """Another solver over the same model, as diffusers' ``from_config``.

    In one thing it differs from diffusers: DDIM chosen over a scheduler that never clips, and whose
    file does not mention it, does not begin to clip the latents either.

    Args:
        config: The model's own config, or one that this function returned.
        name: One of :data:`SOLVER_NAMES`.

    Raises:
        UsageError: there is no solver of that name.
        SchedulerUnsupported: the model's own scheduler describes another kind of model.
    """
    choice = _CHOICES.get(name)
    if choice is None:
        raise UsageError(f"there is no solver {name!r}: choose one of {', '.join(SOLVER_NAMES)}")
    if config.class_name not in _DESCRIBED:
        supported = "models of such a scheduler cannot be run by another one"
        raise SchedulerUnsupported("_class_name", repr(config.class_name), supported)
    return msgspec.structs.replace(_without_clipping(config), **choice)


def with_known_solver(config: SchedulerConfig) -> SchedulerConfig:
    """The config itself where there is a solver for it, or one with a solver that stands in.

    DDIM stands in for PNDM, which Stable Diffusion 1.x was published with: it takes the same steps
    through the same noise schedule. (PNDM itself runs its second step twice and remembers four
    outputs.) Whether there was a stand-in shows in the ``class_name`` of the two.

    Raises:
        SchedulerUnsupported: there is no such solver; another one can be chosen.
    """
    if config.class_name == _PNDM:
        return choose_solver(config, "ddim")
    if config.class_name in _SOLVER_CLASSES:
        return config
    if config.class_name in _DESCRIBED:
        supported = f"choose one of {', '.join(SOLVER_NAMES)}"
    else:
        supported = f"only {', '.join((*_SOLVER_CLASSES, _PNDM))} are"
    raise SchedulerUnsupported("_class_name", repr(config.class_name), supported)


def _without_clipping(config: SchedulerConfig) -> SchedulerConfig:
    if config.clip_sample is UNSET and config.class_name not in _CLIPPING:
        return msgspec.structs.replace(config, clip_sample=False)
    return config


def for_stable_diffusion(config: SchedulerConfig) -> SchedulerConfig:
    """The config as diffusers' ``StableDiffusionPipeline`` (1.x, 2.x, not XL) corrects it.

    That pipeline never clips and always begins one step above 0, whatever the file says, as the
    files of the first models were wrong in both.
    """
    return msgspec.structs.replace(config, clip_sample=False, steps_offset=1)

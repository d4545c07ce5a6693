"""What a solver reads: a config with the solver's own defaults, checked before any arithmetic."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from msgspec import UNSET

from lambda_split.diffusion.scheduler_config import SchedulerConfig, with_known_solver
from lambda_split.errors import SchedulerUnsupported

__all__ = ["SchedulerSettings", "resolve"]


@dataclass(frozen=True)
class SchedulerSettings:
    """A config without gaps; the fields are diffusers', and the defaults are what most have.

    Attributes:
        solver: The class of diffusers whose steps are taken.
        clip_sample: Whether predicted originals are clipped to ±``clip_sample_range``.
        lambda_min_clipped: The lowest log(alpha / sigma) to start from; None is any.
    """

    solver: str
    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    rescale_betas_zero_snr: bool = False
    prediction_type: str = "epsilon"
    variance_type: str | None = None
    timestep_spacing: str = "linspace"
    timestep_type: str = "discrete"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    thresholding: bool = False
    interpolation_type: str = "linear"
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    use_lu_lambdas: bool = False
    use_flow_sigmas: bool = False
    sigma_min: float | None = None
    sigma_max: float | None = None
    final_sigmas_type: str = "zero"
    algorithm_type: str = "dpmsolver++"
    solver_order: int = 2
    solver_type: str = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    lambda_min_clipped: float | None = None
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0


_DEFAULTS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "DDIMScheduler": {"timestep_spacing": "leading", "clip_sample": True},
        "LCMScheduler": {
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "timestep_spacing": "leading",
        },
    }
)
# What the files of other multistep schedulers have there, as diffusers reads it for this one.
_SAME_SOLVER_TYPE = {"logrho": "midpoint", "bh1": "midpoint", "bh2": "midpoint"}

_ANY = ("DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "LCMScheduler")
_ALL = (*_ANY, "EulerAncestralDiscreteScheduler")
_DPM_SOLVER = ("DPMSolverMultistepScheduler",)
_EULER = ("EulerDiscreteScheduler",)
# A field, the values that are supported, and the solvers that read it.
_SUPPORTED: tuple[tuple[str, tuple[object, ...], tuple[str, ...]], ...] = (
    ("beta_schedule", ("linear", "scaled_linear", "squaredcos_cap_v2"), _ALL),
    ("prediction_type", ("epsilon", "v_prediction", "sample"), _ANY),
    ("prediction_type", ("epsilon", "v_prediction"), ("EulerAncestralDiscreteScheduler",)),
    ("timestep_spacing", ("leading", "linspace", "trailing"), _ALL),
    ("timestep_type", ("discrete", "continuous"), _EULER),
    ("interpolation_type", ("linear", "log_linear"), _EULER),
    ("final_sigmas_type", ("zero", "sigma_min"), (*_EULER, *_DPM_SOLVER)),
    ("algorithm_type", ("dpmsolver++",), _DPM_SOLVER),
    ("solver_order", (1, 2), _DPM_SOLVER),
    ("solver_type", ("midpoint", "heun"), _DPM_SOLVER),
    # Denoisers that predict more than the noise, and those trained on straight paths.
    (
        "variance_type",
        (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
        _ALL,
    ),
    ("use_flow_sigmas", (False,), _ALL),
    # The percentile of a picture's pixels means nothing for latents.
    ("thresholding", (False,), ("DDIMScheduler", "LCMScheduler", *_DPM_SOLVER)),
    ("use_exponential_sigmas", (False,), (*_EULER, *_DPM_SOLVER)),
    ("use_beta_sigmas", (False,), (*_EULER, *_DPM_SOLVER)),
    ("use_lu_lambdas", (False,), _DPM_SOLVER),
)


def resolve(config: SchedulerConfig) -> SchedulerSettings:
    """Fill in what the config leaves open and check what its solver will read.

    Raises:
        SchedulerUnsupported: a field has a value that no solver here knows, or two contradict each
            other. Fields that this solver does not read may hold anything.
    """
    config = with_known_solver(config)
    solver = config.class_name
    values: dict[str, Any] = dict(_DEFAULTS.get(solver, {}))
    for field in dataclasses.fields(SchedulerSettings):
        given = getattr(config, field.name, UNSET)
        if given is not UNSET:
            values[field.name] = given
    if "solver_type" in values:
        values["solver_type"] = _SAME_SOLVER_TYPE.get(values["solver_type"], values["solver_type"])
    settings = SchedulerSettings(solver, **values)
    for name, supported, readers in _SUPPORTED:
        if solver in readers and getattr(settings, name) not in supported:
            _refuse(settings, name, f"{solver} takes {_listed(supported)}")
    _check_together(settings)
    return settings


def _check_together(settings: SchedulerSettings) -> None:
    betas = settings.trained_betas
    if betas is not None and len(betas) != settings.num_train_timesteps:
        supported = f"there must be one for each of {settings.num_train_timesteps} steps"
        raise SchedulerUnsupported("trained_betas of length", str(len(betas)), supported)
    original = settings.original_inference_steps
    if settings.solver == "LCMScheduler" and original > settings.num_train_timesteps:
        _refuse(settings, "original_inference_steps", "it exceeds num_train_timesteps")
    low, high = settings.sigma_min, settings.sigma_max
    if low is not None and high is not None and low >= high:
        _refuse(settings, "sigma_min", f"it must be below sigma_max, {high}")


def _listed(values: tuple[object, ...]) -> str:
    return " or ".join("none" if value is None else repr(value) for value in values)


def _refuse(settings: SchedulerSettings, name: str, supported: str) -> None:
    raise SchedulerUnsupported(name, repr(getattr(settings, name)), supported)

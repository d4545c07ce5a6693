"""A solver for a model's config and a number of steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from lambda_split.diffusion.ddim import ddim
from lambda_split.diffusion.dpm_solver import dpm_solver
from lambda_split.diffusion.euler import euler
from lambda_split.diffusion.euler_ancestral import euler_ancestral
from lambda_split.diffusion.lcm import lcm
from lambda_split.diffusion.scheduler_config import SchedulerConfig
from lambda_split.diffusion.scheduler_settings import SchedulerSettings, resolve
from lambda_split.diffusion.solver import Solver

__all__ = ["make_solver"]

_MAKERS: Mapping[str, Callable[[SchedulerSettings, int], Solver]] = MappingProxyType(
    {
        "EulerDiscreteScheduler": euler,
        "EulerAncestralDiscreteScheduler": euler_ancestral,
        "DDIMScheduler": ddim,
        "DPMSolverMultistepScheduler": dpm_solver,
        "LCMScheduler": lcm,
    }
)


def make_solver(config: SchedulerConfig, steps: int) -> Solver:
    """Make the solver that a config describes.

    Args:
        config: The model's own, or one that ``choose_solver`` returned.
        steps: How often the denoiser is to run.

    Raises:
        SchedulerUnsupported: the config asks for something that no solver does.
        UsageError: the schedule has no room for so many steps.
    """
    settings = resolve(config)
    return _MAKERS[settings.solver](settings, steps)

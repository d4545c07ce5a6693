"""Whole trajectories, by diffusers and by us, of a denoiser that is a formula."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
from dataclasses import dataclass, field
from unittest import mock

import diffusers
import numpy as np
import torch

from lambda_split.diffusion.gaussian import START, standard_normal
from lambda_split.diffusion.scheduler_config import parse_scheduler_config
from lambda_split.diffusion.solvers import make_solver

SHAPE = (4, 6, 5)
IMAGES = (0, 1)
SEED = 20_260_709


@dataclass
class Trajectory:
    """What happened at each step; arrays are float32 (B, C, H, W)."""

    timesteps: list[float]
    start: np.ndarray
    inputs: list[np.ndarray] = field(default_factory=list)
    originals: list[np.ndarray] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)


def denoise(sample: np.ndarray, timestep: float) -> np.ndarray:
    """Smooth, bounded, not linear, and different for every pixel, channel and timestep."""
    wide = sample.astype(np.float64)
    mixed = 0.8 * wide + 0.3 * np.roll(wide, 1, axis=1) - 0.2 * np.roll(wide, 1, axis=3)
    bias = 0.4 * math.sin(timestep / 130.0)
    return (np.tanh(mixed + bias) + 0.1 * np.sin(2.0 * wide)).astype(np.float32)


def noise_of(step: int) -> np.ndarray:
    return standard_normal(SEED, step, IMAGES, SHAPE)


def written(config: dict) -> bytes:
    return json.dumps(config).encode()


def ours(config, steps: int) -> Trajectory:
    """``config`` is a dictionary as of a file, or a parsed config."""
    if isinstance(config, dict):
        config = parse_scheduler_config(written(config))
    solver = make_solver(config, steps)
    state = solver.start(noise_of(START))
    result = Trajectory(list(solver.timesteps), state.sample)
    for step, timestep in enumerate(solver.timesteps):
        assert len(state.memory) == solver.memory_count(step)
        seen = solver.scale_input(state.sample, step)
        output = denoise(seen, timestep)
        result.inputs.append(seen)
        result.originals.append(solver.predicted_original(output, step, state))
        noise = noise_of(step) if solver.needs_noise(step) else None
        state = solver.step(output, step, state, noise)
        result.samples.append(state.sample)
    assert len(state.memory) == solver.memory_count(solver.steps) == 0
    return result


def from_file(config: dict, class_name: str | None = None, **changes):
    """The library's scheduler as made of a file, or another one made of that one's config."""
    scheduler = getattr(diffusers, config["_class_name"]).from_config(json.loads(written(config)))
    if class_name is not None:
        scheduler = getattr(diffusers, class_name).from_config(scheduler.config, **changes)
    return scheduler


def library(scheduler, steps: int) -> Trajectory:
    """``scheduler`` is a dictionary as of a file, or one of the library's."""
    if isinstance(scheduler, dict):
        scheduler = from_file(scheduler)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        # As pipelines do that know of it. Without, multistep loses its first step where two
        # timesteps are the same after rounding.
        scheduler.set_begin_index(0)
    sample = torch.from_numpy(noise_of(START)) * scheduler.init_noise_sigma
    timesteps = scheduler.timesteps
    result = Trajectory(timesteps.tolist(), sample.numpy())
    with _our_noise(type(scheduler).__module__) as drawing:
        for step, timestep in enumerate(timesteps):
            drawing.step = step
            seen = scheduler.scale_model_input(sample, timestep)
            output = torch.from_numpy(denoise(seen.numpy(), timestep.item()))
            result.inputs.append(seen.numpy())
            made = scheduler.step(output, timestep, sample)
            sample = made.prev_sample
            result.samples.append(sample.numpy())
            original = getattr(made, "pred_original_sample", getattr(made, "denoised", None))
            if original is None:  # multistep: what it remembers
                original = scheduler.model_outputs[-1]
            result.originals.append(original.numpy())
    return result


@contextlib.contextmanager
def _our_noise(module: str):
    """Lets the library draw what we would."""
    drawing = mock.Mock(step=None)
    names = vars(importlib.import_module(module))
    if "randn_tensor" not in names:
        yield drawing
        return

    def draw(shape, **_):
        noise = torch.from_numpy(noise_of(drawing.step))
        assert noise.shape == shape
        return noise

    with mock.patch(f"{module}.randn_tensor", draw):
        yield drawing


def distance(first: Trajectory, second: Trajectory) -> float:
    """The largest difference, relative to the array's largest value where that exceeds 1.

    Where latents begin far larger than they end, float32 in the library loses what the largest
    ones cannot hold; four roundings of those are allowed for.
    """
    assert len(first.samples) == len(second.samples)
    lost = 4 * 2.0**-24 * np.abs(second.start).max()
    pairs = [(first.start, second.start)]
    for name in ("inputs", "originals", "samples"):
        pairs += zip(getattr(first, name), getattr(second, name), strict=True)
    worst = 0.0
    for left, right in pairs:
        assert left.dtype == right.dtype == np.float32
        assert np.isfinite(right).all()
        worst = max(worst, (np.abs(left - right).max() - lost) / max(1.0, np.abs(right).max()))
    return float(worst)


def check_equal(mine: Trajectory, theirs: Trajectory, *, timesteps_within: float = 0.0) -> None:
    assert len(mine.timesteps) == len(theirs.timesteps)
    apart = np.abs(np.array(mine.timesteps) - np.array(theirs.timesteps)).max()
    assert apart <= timesteps_within
    assert distance(mine, theirs) <= 1e-5

"""The way of the latents: start, noise, state, and what the first difference is coded against."""

import msgspec
import numpy as np
import pytest

from lambda_split.diffusion.gaussian import START, standard_normal
from lambda_split.diffusion.scheduler_config import SchedulerConfig
from lambda_split.errors import SchedulerUnsupported, UsageError
from lambda_split.wire.pictures.settings import Denoising
from lambda_split.wire.pictures.trajectory import Trajectory
from tests.wire.pictures.examples import FP32, NF4_CHANNEL, NF4_DELTA

SHAPE = (2, 3, 5)


def trajectory(name="EulerDiscreteScheduler", *, steps=4, first_image=0, images=2, **config):
    scheduler = SchedulerConfig(class_name=name, **config)
    denoising = Denoising(scheduler=scheduler, steps=steps, seed=7, first_image=first_image)
    return Trajectory.of(denoising, images, SHAPE)


def test_it_starts_from_the_seed_scaled_as_the_solver_wants_it():
    way = trajectory()
    noise = standard_normal(7, START, range(2), SHAPE)
    assert np.array_equal(way.start().sample, way.solver.start(noise).sample)
    assert way.start().sample.std() > 10  # Euler's sigmas
    assert way.start().memory == ()


def test_each_image_has_noise_of_its_own_index():
    both, second = trajectory(), trajectory(first_image=1, images=1)
    assert both.images == range(2)
    assert second.images == range(1, 2)
    assert np.array_equal(both.start().sample[1:], second.start().sample)
    assert np.array_equal(both.noise(3)[1:], second.noise(3))


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"])
def test_a_step_is_the_solver_s_with_noise_where_it_wants_some(name):
    way = trajectory(name)
    state, output = way.start(), standard_normal(1, 0, range(2), SHAPE)
    noise = way.noise(0) if way.solver.needs_noise(0) else None
    assert (noise is not None) is (name == "EulerAncestralDiscreteScheduler")
    expected = way.solver.step(output, 0, state, noise)
    assert np.array_equal(way.after(output, 0, state).sample, expected.sample)


@pytest.mark.parametrize(
    ("name", "kind", "guesses"),
    [
        ("EulerDiscreteScheduler", "epsilon", True),
        ("DDIMScheduler", "epsilon", True),
        ("EulerDiscreteScheduler", "v_prediction", False),
        ("DDIMScheduler", "sample", False),
    ],
)
def test_the_first_reference_is_the_denoiser_s_input_where_it_predicts_noise(name, kind, guesses):
    way = trajectory(name, prediction_type=kind)
    reference = way.first_reference(way.start())
    if not guesses:
        assert reference is None
        return
    assert reference.dtype == np.float32
    assert np.array_equal(reference, way.solver.scale_input(way.start().sample, 0))


def test_a_config_that_says_nothing_of_it_predicts_noise():
    """As diffusers' schedulers do, and as the solver does that is made of it."""
    way = trajectory("DDIMScheduler")
    assert np.array_equal(way.first_reference(way.start()), way.start().sample)


@pytest.mark.parametrize(
    ("name", "form", "counts"),
    [
        ("EulerDiscreteScheduler", FP32, [1, 1, 1, 1]),
        ("EulerDiscreteScheduler", NF4_CHANNEL, [1, 1, 1, 1]),
        ("EulerDiscreteScheduler", NF4_DELTA, [1, 2, 2, 2]),
        # Second order but for the first step and, of so few, the last.
        ("DPMSolverMultistepScheduler", FP32, [1, 2, 2, 1]),
        ("DPMSolverMultistepScheduler", NF4_DELTA, [1, 3, 3, 2]),
    ],
)
def test_a_state_has_latents_memory_and_reference(name, form, counts):
    way = trajectory(name)
    assert [way.state_tensors(step, form) for step in range(4)] == counts
    state, output = way.start(), standard_normal(1, 0, range(2), SHAPE)
    for step in range(4):
        held = 1 + len(state.memory) + (form.delta and step > 0)
        assert held == counts[step]
        state = way.after(output, step, state)


def test_a_solver_that_is_not_known_is_told():
    with pytest.raises(SchedulerUnsupported):
        trajectory("TCDScheduler")
    with pytest.raises(UsageError):
        trajectory("DDIMScheduler", steps=11, num_train_timesteps=10)


def test_settings_hold_what_the_way_is_made_of():
    way = trajectory("DDIMScheduler", steps=3)
    assert way.solver.steps == way.denoising.steps == 3
    again = msgspec.json.decode(msgspec.json.encode(way.denoising), type=Denoising)
    assert np.array_equal(Trajectory.of(again, 2, SHAPE).start().sample, way.start().sample)

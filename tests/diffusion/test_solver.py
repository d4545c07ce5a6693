"""What holds for every solver: a step is a function of its state, to the bit."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from lambda_split.diffusion.gaussian import START, standard_normal
from lambda_split.diffusion.scheduler_config import (
    SOLVER_NAMES,
    choose_solver,
    parse_scheduler_config,
)
from lambda_split.diffusion.solver import SolverState
from lambda_split.diffusion.solvers import make_solver
from tests.diffusion.published import SD_21_V, SDXL
from tests.diffusion.trajectories import written

SHAPE = (4, 8, 6)
STEPS = 20
# Of every state and timestep, with the configs of SDXL and of Stable Diffusion 2.1 (v).
BITS = {
    "euler": ("1d8cabdebd76caf9", "e127ad331bd879e7"),
    "euler-ancestral": ("50d1e7596407e98d", "b17535eb57dec798"),
    "ddim": ("aad003a93624bbce", "046feb71862ed09d"),
    "dpm++2m": ("81b18bba6e9f8f61", "fcd789ec3ec8f4e5"),
    "dpm++2m-karras": ("7be9e03189554628", "b4bd9cc68128b9ea"),
    "lcm": ("ff5f524fc3d98837", "e7bb00405212cb0f"),
}


def made(name, config=SDXL, steps=STEPS):
    return make_solver(choose_solver(parse_scheduler_config(written(config)), name), steps)


def output_of(step, images=(0,)):
    """Stands for a denoiser's output without any function of the C library."""
    return standard_normal(99, step, images, SHAPE)


def states(solver, images=(0,)):
    """The state before each step and after the last."""
    state = solver.start(standard_normal(5, START, images, SHAPE))
    result = [state]
    for step in range(solver.steps):
        noise = standard_normal(5, step, images, SHAPE) if solver.needs_noise(step) else None
        state = solver.step(output_of(step, images), step, state, noise)
        result.append(state)
    return result


@pytest.mark.parametrize("name", SOLVER_NAMES)
def test_any_step_can_be_taken_again_from_its_state(name):
    solver = made(name)
    all_states = states(solver)
    again = made(name)  # as the other side has it
    for step in reversed(range(solver.steps)):
        before = all_states[step]
        sent = SolverState(before.sample.copy(), tuple(array.copy() for array in before.memory))
        noise = standard_normal(5, step, [0], SHAPE) if again.needs_noise(step) else None
        after = again.step(output_of(step), step, sent, noise)
        np.testing.assert_array_equal(after.sample, all_states[step + 1].sample)
        assert len(after.memory) == len(all_states[step + 1].memory)
        for found, expected in zip(after.memory, all_states[step + 1].memory, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", SOLVER_NAMES)
def test_an_image_of_a_batch_is_the_one_made_alone(name):
    solver = made(name)
    batch = states(solver, (0, 1, 2))[-1].sample
    for index in range(3):
        np.testing.assert_array_equal(batch[index], states(solver, (index,))[-1].sample[0])


@pytest.mark.parametrize("name", SOLVER_NAMES)
def test_a_step_changes_nothing_that_it_was_given(name):
    solver = made(name)
    for step, state in enumerate(states(solver)[:-1]):
        given = [state.sample, *state.memory, output_of(step), standard_normal(5, step, [0], SHAPE)]
        before = [array.copy() for array in given]
        for array in given:
            array.flags.writeable = False
        solver.predicted_original(given[-2], step, state)
        solver.step(given[-2], step, state, given[-1])
        for array, copy in zip(given, before, strict=True):
            np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("name", SOLVER_NAMES)
@pytest.mark.parametrize("steps", [1, 2, 14, 15, 20])
def test_what_a_state_holds_is_known_beforehand(name, steps):
    solver = made(name, steps=steps)
    for step, state in enumerate(states(solver)):
        assert len(state.memory) == solver.memory_count(step)
        for array in (state.sample, *state.memory):
            assert array.dtype == np.float32
            assert array.shape == (1, *SHAPE)
    multistep = name.startswith("dpm++")
    # The first step knows none before it, and the last one, down to sigma 0, is of first order.
    expected = [int(multistep and 0 < step < steps - 1) for step in range(steps + 1)]
    assert [solver.memory_count(step) for step in range(steps + 1)] == expected
    noisy = [name in ("euler-ancestral", "lcm") and step < steps - 1 for step in range(steps)]
    assert [solver.needs_noise(step) for step in range(steps)] == noisy


# With this model's config, DDIM ends at the first training step, which has noise left.
@pytest.mark.parametrize("name", [name for name in SOLVER_NAMES if name != "ddim"])
def test_the_last_step_of_most_shows_its_preview(name):
    solver = made(name)
    *_, before, after = states(solver)
    preview = solver.predicted_original(output_of(STEPS - 1), STEPS - 1, before)
    np.testing.assert_array_equal(preview, after.sample)


@pytest.mark.parametrize("config", [SDXL, SD_21_V], ids=["epsilon", "v"])
@pytest.mark.parametrize("name", SOLVER_NAMES)
def test_the_same_bits_on_every_machine(name, config):
    digest = hashlib.sha256()
    for state in states(made(name, config)):
        for array in (state.sample, *state.memory):
            digest.update(array.astype("<f4").tobytes())
    timesteps = np.array(made(name, config).timesteps, dtype="<f8")
    digest.update(timesteps.tobytes())
    assert digest.hexdigest()[:16] == BITS[name][config is SD_21_V]


def test_a_state_of_another_step_is_refused():
    solver = made("dpm++2m")
    first, second, *_ = states(solver)
    with pytest.raises(ValueError, match="needs 1 remembered, not 0"):
        solver.step(output_of(1), 1, first)
    with pytest.raises(ValueError, match="needs 0 remembered, not 1"):
        solver.step(output_of(0), 0, second)


def test_missing_noise_is_refused():
    solver = made("lcm")
    state = states(solver)[0]
    with pytest.raises(ValueError, match="step 0 of this solver needs noise"):
        solver.step(output_of(0), 0, state)


def test_other_shapes_are_refused():
    solver = made("euler-ancestral")
    state = states(solver, (0, 1))[0]
    one, both = output_of(0, (0,)), output_of(0, (0, 1))
    for output, noise in [(one, both), (both, one)]:
        with pytest.raises(ValueError, match="shapes differ"):
            solver.step(output, 0, state, noise)
    with pytest.raises(ValueError, match="shapes differ"):
        solver.predicted_original(one, 0, state)


def test_overflow_is_infinite_and_silent():
    solver = made("euler")
    largest = np.full((1, *SHAPE), np.finfo(np.float32).max)
    with np.errstate(all="raise"):
        state = solver.step(largest, 0, SolverState(-largest))
    assert np.isinf(state.sample).all()


def test_nothing_heavy_is_imported():
    program = """
import sys
heavy = ("torch", "diffusers", "transformers", "scipy", "onnxruntime")
sys.modules.update(dict.fromkeys(heavy))  # importing one of them fails
from lambda_split.diffusion import gaussian, scheduler_config, solvers
config = scheduler_config.parse_scheduler_config(b'{"_class_name": "EulerDiscreteScheduler"}')
solver = solvers.make_solver(config, 3)
solver.start(gaussian.standard_normal(0, gaussian.START, [0], (1, 2, 2)))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

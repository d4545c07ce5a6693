"""Configs that are read, and each that is refused."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambda_split.diffusion.scheduler_config import (
    SOLVER_NAMES,
    choose_solver,
    parse_scheduler_config,
    with_known_solver,
)
from lambda_split.diffusion.solvers import make_solver
from lambda_split.errors import CheckpointInvalid, SchedulerUnsupported, UsageError
from tests.diffusion.published import LCM, PIXART, SD_15, SDXL
from tests.diffusion.trajectories import written

EULER = "EulerDiscreteScheduler"
ANCESTRAL = "EulerAncestralDiscreteScheduler"
DDIM = "DDIMScheduler"
MULTISTEP = "DPMSolverMultistepScheduler"


def parsed(class_name=EULER, **fields):
    return parse_scheduler_config(written({"_class_name": class_name, **fields}))


def test_unknown_fields_are_ignored_and_null_is_absent():
    config = parsed(beta_start=None, sigma_min=None, made_up={"deep": [1, 2]})
    assert config == parsed()


def test_minus_infinity_is_absent_where_the_library_writes_it():
    assert parse_scheduler_config(written(PIXART)) == parse_scheduler_config(
        written({name: value for name, value in PIXART.items() if name != "lambda_min_clipped"})
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'{"_class_name": "EulerDiscreteScheduler"',
        b"\xff\xfe",
        b"[" * 100_000,
        b"{}",
        b'{"_class_name": null}',
        b'{"_class_name": 1}',
        b'{"_class_name": ["EulerDiscreteScheduler"]}',
        b'{"_class_name": "' + b"x" * 65 + b'"}',
        b" " * (1024 * 1024 + 1),
        b'{"_class_name": "EulerDiscreteScheduler", "beta_start": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda data: f"{data[:40]!r}",
)
def test_what_is_no_config_is_refused(data):
    with pytest.raises(CheckpointInvalid, match=r"scheduler_config\.json"):
        parse_scheduler_config(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, bad) for name in ("beta_start", "beta_end") for bad in (0, -0.1, 1, "0.1", True)),
        *((name, math.nan) for name in ("beta_start", "sigma_max", "timestep_scaling")),
        *((name, math.inf) for name in ("beta_end", "sigma_min", "clip_sample_range")),
        *((name, -math.inf) for name in ("sigma_max", "beta_start")),
        *(("num_train_timesteps", bad) for bad in (1, 0, -1, 10_001, 1000.5, 10**30)),
        *(("steps_offset", bad) for bad in (-1, 10_001)),
        *(("solver_order", bad) for bad in (0, 17)),
        *(("original_inference_steps", bad) for bad in (0, 10_001)),
        *(("timestep_scaling", bad) for bad in (0, 1e9)),
        *(("clip_sample_range", bad) for bad in (0, -1, 1e9)),
        *(("sigma_min", bad) for bad in (0, -1, 1e9)),
        *(("lambda_min_clipped", bad) for bad in (-101, 101, math.inf, math.nan, "-1")),
        ("trained_betas", [0.1, 1.0]),
        ("trained_betas", [0.1] * 10_001),
        ("trained_betas", 0.1),
        ("clip_sample", "yes"),
        ("use_karras_sigmas", 1),
        ("prediction_type", 3),
        ("prediction_type", "x" * 65),
        ("solver_type", "\ud800"),
    ],
)
def test_absurd_values_are_refused_while_reading(field, value):
    with pytest.raises(CheckpointInvalid, match=field):
        parsed(**{field: value})


@pytest.mark.parametrize(
    ("class_name", "field", "value"),
    [
        *(
            (name, field, "made-up")
            for name in (EULER, ANCESTRAL, DDIM, MULTISTEP, "LCMScheduler")
            for field in ("beta_schedule", "prediction_type", "timestep_spacing", "variance_type")
            if not (name == "LCMScheduler" and field == "timestep_spacing")
        ),
        (ANCESTRAL, "prediction_type", "sample"),
        (MULTISTEP, "prediction_type", "flow_prediction"),
        (EULER, "timestep_type", "made-up"),
        (EULER, "interpolation_type", "made-up"),
        *((name, "final_sigmas_type", "made-up") for name in (EULER, MULTISTEP)),
        *((name, "use_exponential_sigmas", True) for name in (EULER, MULTISTEP)),
        *((name, "use_beta_sigmas", True) for name in (EULER, MULTISTEP)),
        *((name, "use_flow_sigmas", True) for name in (EULER, MULTISTEP)),
        *((name, "thresholding", True) for name in (DDIM, MULTISTEP, "LCMScheduler")),
        (MULTISTEP, "use_lu_lambdas", True),
        (MULTISTEP, "algorithm_type", "sde-dpmsolver++"),
        (MULTISTEP, "algorithm_type", "dpmsolver"),
        (MULTISTEP, "solver_order", 3),
        (MULTISTEP, "solver_type", "made-up"),
        (MULTISTEP, "variance_type", "learned_range"),
        (MULTISTEP, "lambda_min_clipped", 99.0),
        ("LCMScheduler", "original_inference_steps", 1001),
    ],
)
def test_values_that_no_solver_knows_are_refused(class_name, field, value):
    with pytest.raises(SchedulerUnsupported) as caught:
        make_solver(parsed(class_name, **{field: value}), 4)
    assert caught.value.field == field
    assert field in str(caught.value)
    assert str(value) in str(caught.value)


def test_fields_that_the_solver_does_not_read_may_hold_anything():
    config = parsed(
        algorithm_type="made-up", solver_order=9, thresholding=True, use_lu_lambdas=True
    )
    assert make_solver(config, 4).steps == 4


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"trained_betas": [0.1, 0.2]}, "one for each of 1000 steps"),
        ({"sigma_min": 2.0, "sigma_max": 1.0}, "below sigma_max"),
        ({"sigma_min": 500.0, "use_karras_sigmas": True}, "begin at"),
        ({"beta_start": 0.9, "beta_end": 0.9}, "nothing of a picture"),
        (
            {"num_train_timesteps": 3, "trained_betas": [0.5, 1e-7, 1e-7]}
            | {"rescale_betas_zero_snr": True, "beta_schedule": "linear"},
            "must add noise",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fields_that_contradict_each_other_are_refused(fields, reason):
    with pytest.raises(SchedulerUnsupported, match=reason):
        make_solver(parsed(**fields), 2)


@pytest.mark.parametrize("name", ["ddim", "lcm"])
def test_no_signal_and_predicted_noise_leave_nothing_to_know(name):
    config = parsed(DDIM, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    with pytest.raises(SchedulerUnsupported, match="nothing is known"):
        make_solver(choose_solver(config, name), 4)


@pytest.mark.parametrize("name", SOLVER_NAMES)
@pytest.mark.parametrize("steps", [0, -1, True, 10**9])
def test_an_impossible_number_of_steps_is_refused(name, steps):
    config = choose_solver(parse_scheduler_config(written(SDXL)), name)
    with pytest.raises(UsageError, match="takes 1 to"):
        make_solver(config, steps)


def test_more_steps_than_there_is_room_for_are_refused():
    with pytest.raises(UsageError, match="go beyond the 1000"):
        make_solver(parsed(timestep_spacing="leading", steps_offset=1), 1000)
    with pytest.raises(UsageError, match="takes 1 to 50 steps"):
        make_solver(parse_scheduler_config(written(LCM)), 51)
    with pytest.raises(UsageError, match="takes 1 to 999 steps"):
        make_solver(parsed(MULTISTEP), 1000)


@pytest.mark.parametrize("class_name", ["FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler", ""])
def test_a_scheduler_of_another_kind_of_model_is_refused(class_name):
    config = parsed(class_name)
    with pytest.raises(SchedulerUnsupported, match="only EulerDiscreteScheduler"):
        make_solver(config, 4)
    for name in SOLVER_NAMES:
        with pytest.raises(SchedulerUnsupported, match="cannot be run by another one"):
            choose_solver(config, name)


def test_a_scheduler_that_we_lack_can_be_replaced():
    config = parsed("HeunDiscreteScheduler")
    with pytest.raises(SchedulerUnsupported, match=r"choose one of euler, euler-ancestral"):
        make_solver(config, 4)
    for name in SOLVER_NAMES:
        assert make_solver(choose_solver(config, name), 4).steps == 4


def test_an_unknown_solver_is_refused():
    with pytest.raises(UsageError, match=r"no solver 'plms': choose one of euler"):
        choose_solver(parsed(), "plms")


def test_a_stand_in_shows():
    own = parse_scheduler_config(written(SD_15))
    assert own.class_name == "PNDMScheduler"
    assert with_known_solver(own).class_name == DDIM
    other = parse_scheduler_config(written(SDXL))
    assert with_known_solver(other) is other


def test_latents_are_not_clipped_by_a_solver_over_a_scheduler_that_never_clips():
    assert make_solver(parsed(DDIM), 4).clip_range == 1.0
    assert make_solver(choose_solver(parsed(DDIM), "ddim"), 4).clip_range == 1.0
    assert make_solver(choose_solver(parsed(EULER), "ddim"), 4).clip_range is None
    assert make_solver(parsed("PNDMScheduler"), 4).clip_range is None
    clipping = parsed(EULER, clip_sample=True, clip_sample_range=3.0)
    assert make_solver(choose_solver(clipping, "ddim"), 4).clip_range == 3.0


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "num_train_timesteps": st.integers(2, 60) | st.just(1000),
        "beta_start": st.floats(1e-7, 0.999),
        "beta_end": st.floats(1e-7, 0.999),
        "beta_schedule": st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"]),
        "rescale_betas_zero_snr": st.booleans(),
        "prediction_type": st.sampled_from(["epsilon", "v_prediction", "sample"]),
        "timestep_spacing": st.sampled_from(["leading", "trailing", "linspace"]),
        "timestep_type": st.sampled_from(["discrete", "continuous"]),
        "steps_offset": st.integers(0, 60),
        "set_alpha_to_one": st.booleans(),
        "clip_sample": st.booleans(),
        "interpolation_type": st.sampled_from(["linear", "log_linear"]),
        "use_karras_sigmas": st.booleans(),
        "sigma_min": st.floats(1e-6, 1e6),
        "sigma_max": st.floats(1e-6, 1e6),
        "final_sigmas_type": st.sampled_from(["zero", "sigma_min"]),
        "solver_order": st.integers(1, 2),
        "solver_type": st.sampled_from(["midpoint", "heun"]),
        "lower_order_final": st.booleans(),
        "euler_at_final": st.booleans(),
        "lambda_min_clipped": st.floats(-100, 100),
        "original_inference_steps": st.integers(1, 60),
        "timestep_scaling": st.floats(1e-6, 1e6),
    },
)


@pytest.mark.filterwarnings("error")  # no division by nothing on the way, either
@given(FIELDS, st.sampled_from(SOLVER_NAMES), st.integers(1, 60))
@settings(max_examples=500, deadline=None)
def test_any_config_makes_a_solver_of_finite_weights_or_is_refused(fields, name, steps):
    try:
        solver = make_solver(choose_solver(parsed(**fields), name), steps)
    except (SchedulerUnsupported, UsageError):
        return
    assert 1 <= solver.steps <= steps
    assert math.isfinite(solver.init_noise_sigma)
    shape = (1, 1, 2, 2)
    state = solver.start(np.ones(shape, dtype=np.float32))
    ones = np.ones(shape, dtype=np.float32)
    for step in range(solver.steps):
        assert np.isfinite(solver.scale_input(state.sample, step)).all()
        state = solver.step(ones, step, state, ones)
        assert np.isfinite(state.sample).all()


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=3))
@settings(max_examples=200, deadline=None)
def test_any_value_of_any_field_is_read_or_refused(value):
    for field in ("beta_start", "trained_betas", "clip_sample", "solver_type", "_class_name"):
        data = json.dumps({"_class_name": EULER, field: value}).encode()
        try:
            parse_scheduler_config(data)
        except CheckpointInvalid:
            continue

"""Every solver against diffusers' own, over whole trajectories."""

import itertools

import diffusers
import msgspec
import numpy as np
import pytest

from lambda_split.diffusion.scheduler_config import (
    SOLVER_NAMES,
    choose_solver,
    for_stable_diffusion,
    parse_scheduler_config,
)
from lambda_split.diffusion.solvers import make_solver
from tests.diffusion.published import LCM, PUBLISHED, SD_15, SD_21_V, SDXL, SVD
from tests.diffusion.trajectories import check_equal, from_file, library, ours, written

# The library makes numpy arrays of torch tensors in a way that numpy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = (1, 2, 4, 25, 50)
# Timesteps between training steps follow from float32 logarithms, whose last digit depends on the
# machine in numpy; ours does not.
BETWEEN = 2e-4
LAST_DIGIT = 1e-7  # of a timestep that is a quarter of a logarithm

EULER = "EulerDiscreteScheduler"
ANCESTRAL = "EulerAncestralDiscreteScheduler"
DDIM = "DDIMScheduler"
MULTISTEP = "DPMSolverMultistepScheduler"
CONSISTENCY = "LCMScheduler"
CLASSES = {
    "euler": (EULER, {}),
    "euler-ancestral": (ANCESTRAL, {}),
    "ddim": (DDIM, {}),
    "dpm++2m": (MULTISTEP, {"use_karras_sigmas": False}),
    "dpm++2m-karras": (MULTISTEP, {"use_karras_sigmas": True}),
    "lcm": (CONSISTENCY, {}),
}

PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "trailing", "linspace")
SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
ALL = [
    {"prediction_type": prediction, "timestep_spacing": spacing, "beta_schedule": schedule}
    for prediction, spacing, schedule in itertools.product(PREDICTIONS, SPACINGS, SCHEDULES)
]


def described(class_name, **fields):
    base = {"beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    return {"_class_name": class_name, **base, **fields}


def check(config, steps=STEPS, **tolerance):
    for count in steps:
        check_equal(ours(config, count), library(config, count), **tolerance)


def label(value):
    return "-".join(map(str, value.values())) if isinstance(value, dict) else None


@pytest.mark.parametrize("fields", ALL, ids=label)
@pytest.mark.parametrize("karras", [False, True])
def test_euler(fields, karras):
    config = described(EULER, use_karras_sigmas=karras, **fields)
    check(config, timesteps_within=BETWEEN if karras else 0.0)


@pytest.mark.parametrize(
    "fields", [fields for fields in ALL if fields["prediction_type"] != "sample"], ids=label
)
def test_euler_ancestral(fields):
    config = described(ANCESTRAL, **fields)
    for steps in STEPS:
        theirs = library(config, steps)
        if not np.isfinite(theirs.samples[-1]).all():
            # A difference of squares far apart, which float32 makes negative, under a root.
            assert fields["beta_schedule"] == "squaredcos_cap_v2"
            assert np.isfinite(ours(config, steps).samples[-1]).all()
        else:
            check_equal(ours(config, steps), theirs)


@pytest.mark.parametrize("fields", ALL, ids=label)
@pytest.mark.parametrize("clip", [{"clip_sample": False}, {"clip_sample_range": 1.5}], ids=label)
def test_ddim(fields, clip):
    check(described(DDIM, **fields, **clip))


@pytest.mark.parametrize("fields", ALL, ids=label)
@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
@pytest.mark.parametrize("karras", [False, True])
def test_dpm_solver(fields, solver_type, karras):
    check(described(MULTISTEP, use_karras_sigmas=karras, solver_type=solver_type, **fields))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("clip", [False, True])
def test_lcm(prediction, schedule, clip):
    fields = {"prediction_type": prediction, "beta_schedule": schedule, "clip_sample": clip}
    check(described(CONSISTENCY, **fields))


@pytest.mark.parametrize("name", [name for name in PUBLISHED if PUBLISHED[name] is not SD_15])
def test_published_models(name):
    config = PUBLISHED[name]
    check(config, timesteps_within=LAST_DIGIT if config is SVD else 0.0)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_another_solver_over_a_published_model(name, solver):
    config = PUBLISHED[name]
    class_name, changes = CLASSES[solver]
    chosen = choose_solver(parse_scheduler_config(written(config)), solver)
    karras = config.get("use_karras_sigmas", False)
    for steps in (1, 4, 25):
        theirs = from_file(config, class_name, **changes)
        if "clip_sample" not in config and class_name == DDIM:  # the one intended difference
            theirs = from_file(config, class_name, clip_sample=False)
        within = BETWEEN if class_name == EULER and karras else 0.0
        check_equal(ours(chosen, steps), library(theirs, steps), timesteps_within=within)


def test_ddim_stands_in_for_pndm():
    for steps in STEPS:
        check_equal(ours(SD_15, steps), library(from_file(SD_15, DDIM), steps))


@pytest.mark.parametrize("chosen", [None, "ddim", "lcm"])
@pytest.mark.parametrize("written_out", [{}, {"clip_sample": True, "steps_offset": 0}], ids=len)
def test_the_corrections_of_the_stable_diffusion_pipeline(chosen, written_out):
    file = {"_class_name": DDIM, "beta_schedule": "scaled_linear", **written_out}
    scheduler = from_file(file, None if chosen is None else CLASSES[chosen][0])
    with pytest.warns(FutureWarning):
        pipeline = diffusers.StableDiffusionPipeline(
            vae=None,
            text_encoder=None,
            tokenizer=None,
            unet=None,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    config = parse_scheduler_config(written(file))
    config = config if chosen is None else choose_solver(config, chosen)
    for steps in (1, 4, 25):
        mine = ours(for_stable_diffusion(config), steps)
        check_equal(mine, library(pipeline.scheduler, steps))


@pytest.mark.parametrize(
    "config",
    [
        described(EULER, final_sigmas_type="sigma_min"),
        described(EULER, interpolation_type="log_linear"),
        described(EULER, interpolation_type="log_linear", use_karras_sigmas=True),
        described(EULER, use_karras_sigmas=True, sigma_min=0.02, sigma_max=40.0),
        described(EULER, prediction_type="v_prediction", timestep_type="continuous"),
        described(EULER, rescale_betas_zero_snr=True, timestep_spacing="trailing"),
        described(EULER, num_train_timesteps=300),
        {**SVD, "use_karras_sigmas": False},
        described(ANCESTRAL, rescale_betas_zero_snr=True, timestep_spacing="trailing"),
        described(
            DDIM,
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            prediction_type="v_prediction",
        ),
        described(DDIM, set_alpha_to_one=False, clip_sample=False),
        described(DDIM, trained_betas=np.linspace(0.001, 0.01, 777).tolist())
        | {"num_train_timesteps": 777},
        described(MULTISTEP, solver_order=1),
        described(MULTISTEP, lower_order_final=False),
        described(MULTISTEP, lower_order_final=False, final_sigmas_type="sigma_min"),
        described(MULTISTEP, lower_order_final=False, euler_at_final=True),
        described(MULTISTEP, final_sigmas_type="sigma_min"),
        described(MULTISTEP, final_sigmas_type="sigma_min", solver_type="heun"),
        described(MULTISTEP, final_sigmas_type="sigma_min", use_karras_sigmas=True),
        described(MULTISTEP, beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1),
        described(
            MULTISTEP,
            beta_schedule="squaredcos_cap_v2",
            lambda_min_clipped=-5.1,
            timestep_spacing="trailing",
        ),
        described(MULTISTEP, rescale_betas_zero_snr=True, timestep_spacing="trailing"),
        described(MULTISTEP, use_karras_sigmas=True, sigma_min=0.02, sigma_max=40.0),
        described(MULTISTEP, solver_type="bh2"),
        {**LCM, "original_inference_steps": 100, "timestep_scaling": 3.0},
        {**LCM, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ],
    ids=lambda config: "-".join(str(key) for key in list(config)[4:]) or "plain",
)
def test_less_common_fields(config):
    if config.get("timestep_type") == "continuous":
        check(config, timesteps_within=LAST_DIGIT)
    elif config.get("use_karras_sigmas") and config["_class_name"] == EULER:
        check(config, timesteps_within=BETWEEN)
    else:
        check(config)


@pytest.mark.parametrize("class_name", [EULER, DDIM, MULTISTEP])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_timesteps_for_every_number_of_steps(class_name, spacing):
    config = described(class_name, timestep_spacing=spacing)
    parsed = parse_scheduler_config(written(config))
    scheduler = from_file(config)
    too_long = 0
    for steps in range(1, 990, 12):
        scheduler.set_timesteps(steps)
        mine, theirs = make_solver(parsed, steps).timesteps, scheduler.timesteps.tolist()
        if len(theirs) == steps + 1:  # its division left a rest, so it has a step at -1
            assert spacing == "trailing"
            assert theirs.pop() == -1
            too_long += 1
        assert list(mine) == theirs
    assert (too_long > 0) == (spacing == "trailing")


def test_where_the_library_has_no_step_we_have_one():
    # Two Karras timesteps that are the same after rounding: asked for the first, it takes the
    # second, and runs out of steps at the end.
    config = described(MULTISTEP, beta_schedule="squaredcos_cap_v2", use_karras_sigmas=True)
    scheduler = from_file(config)
    scheduler.set_timesteps(25)
    assert scheduler.timesteps[0] == scheduler.timesteps[1]
    assert scheduler.index_for_timestep(scheduler.timesteps[0]) == 1
    assert len(ours(config, 25).samples) == 25


def test_where_the_library_divides_nothing_by_nothing_we_do_not():
    config = described(
        MULTISTEP, use_karras_sigmas=True, final_sigmas_type="sigma_min", solver_type="heun"
    )
    mine = ours(config, 25)
    scheduler = from_file(config)
    scheduler.set_timesteps(25)
    assert scheduler.sigmas[-1] == scheduler.sigmas[-2]
    np.testing.assert_array_equal(mine.samples[-1], mine.samples[-2])  # a step of length 0


def test_a_config_goes_through_json_unchanged():
    for config in PUBLISHED.values():
        parsed = parse_scheduler_config(written(config))
        assert parse_scheduler_config(msgspec.json.encode(parsed)) == parsed


def test_choosing_again_forgets_the_first_choice():
    own = parse_scheduler_config(written(SDXL))
    assert choose_solver(choose_solver(own, "ddim"), "euler") == own
    karras = choose_solver(parse_scheduler_config(written(SD_21_V)), "dpm++2m-karras")
    assert ours(choose_solver(karras, "dpm++2m"), 4).timesteps != ours(karras, 4).timesteps

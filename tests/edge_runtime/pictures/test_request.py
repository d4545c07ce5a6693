"""What may be asked of a picture, to the last value that is allowed."""

from __future__ import annotations

import dataclasses
import json
import math

import msgspec
import numpy as np
import pytest

from edge_runtime import PictureSpec
from edge_runtime.pictures.request import check_spec, draw_seed, scheduler_of
from lambda_split.diffusion.scheduler_config import SOLVER_NAMES, parse_scheduler_config
from lambda_split.errors import SchedulerUnsupported, UsageError
from lambda_split.image_bundle import LatentGeometry
from lambda_split.wire.pictures.settings import MAX_IMAGES, MAX_STEPS
from tests.edge_runtime.pictures import some_pictures

LATENTS = LatentGeometry(channels=4, scale_factor=8, height=64, width=128)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    made = some_pictures.write_bundle(tmp_path_factory.mktemp("bundle")).manifest
    return msgspec.structs.replace(made, latents=LATENTS)


@pytest.mark.parametrize(
    "allowed",
    [
        {},
        {"height": 8, "width": 4096},
        {"height": 4096, "width": 8},
        {"steps": 1},
        {"steps": MAX_STEPS},
        {"images": MAX_IMAGES},
        {"seed": 0},
        {"seed": (1 << 53) - 1},
        {"guidance": 0},
        {"guidance": 1000},
        {"rescale": 0},
        {"rescale": 1},
    ],
)
def test_what_is_allowed(manifest, allowed) -> None:
    check_spec(PictureSpec(**allowed), manifest)


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 0},
        {"height": -8},
        {"height": 4},
        {"height": 65},
        {"height": 4104},
        {"width": 0},
        {"width": 4097},
        {"width": 4104},
        {"steps": 0},
        {"steps": MAX_STEPS + 1},
        {"images": 0},
        {"images": MAX_IMAGES + 1},
        {"seed": -1},
        {"seed": 1 << 53},
        {"guidance": -0.1},
        {"guidance": 1000.1},
        {"guidance": math.inf},
        {"guidance": math.nan},
        {"rescale": -0.1},
        {"rescale": 1.1},
        {"rescale": math.nan},
        {"steps": 2.5},
        {"steps": "a"},
        {"height": 16.0},
        {"seed": 1.5},
        {"seed": True},
        {"images": None},
        {"guidance": "strong"},
        {"rescale": None},
    ],
)
def test_what_is_not(manifest, wrong) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        check_spec(PictureSpec(**wrong), manifest)


def test_numpys_numbers_are_as_good_as_pythons(manifest) -> None:
    given = PictureSpec(
        steps=np.int64(9), height=np.int32(16), seed=np.uint8(3), guidance=np.float32(2)
    )
    check_spec(given, manifest)
    assert given == PictureSpec(steps=9, height=16, seed=3, guidance=2.0)
    assert {type(given.steps), type(given.height), type(given.seed)} == {int}
    assert type(given.guidance) is float


def test_the_size_is_the_models_own_where_none_is_given(manifest) -> None:
    assert PictureSpec().size(manifest) == (64, 128)
    assert PictureSpec(height=32).size(manifest) == (32, 128)
    assert PictureSpec(width=32).size(manifest) == (64, 32)


def test_a_spec_cannot_be_changed_afterwards() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PictureSpec().steps = 3  # type: ignore[misc]  # that is the point


def _config(**changes):
    return parse_scheduler_config(json.dumps(some_pictures.SCHEDULER | changes).encode())


@pytest.mark.parametrize("solver", [None, *SOLVER_NAMES])
def test_the_solver_is_the_models_own_or_the_one_chosen(manifest, solver) -> None:
    config = scheduler_of(_config(), PictureSpec(solver=solver), manifest)
    assert (config.class_name == "EulerDiscreteScheduler") is (solver in {None, "euler"})
    assert config.beta_start == some_pictures.SCHEDULER["beta_start"]


def test_a_solver_that_is_not_known(manifest) -> None:
    with pytest.raises(UsageError, match="euler"):
        scheduler_of(_config(), PictureSpec(solver="magic"), manifest)


def test_a_scheduler_without_a_solver_here_can_be_replaced(manifest) -> None:
    config = _config(_class_name="HeunDiscreteScheduler")
    with pytest.raises(SchedulerUnsupported, match="choose one of euler"):
        scheduler_of(config, PictureSpec(), manifest)
    chosen = scheduler_of(config, PictureSpec(solver="euler"), manifest)
    assert chosen.class_name == "EulerDiscreteScheduler"


@pytest.mark.parametrize("solver", [None, "euler"])
def test_a_scheduler_of_another_kind_of_model(manifest, solver) -> None:
    with pytest.raises(SchedulerUnsupported, match="MagicScheduler"):
        scheduler_of(_config(_class_name="MagicScheduler"), PictureSpec(solver=solver), manifest)


def test_seeds_that_are_drawn_are_allowed_and_vary(manifest) -> None:
    seeds = {draw_seed() for _ in range(20)}
    assert len(seeds) > 15
    for seed in seeds:
        check_spec(PictureSpec(seed=seed), manifest)

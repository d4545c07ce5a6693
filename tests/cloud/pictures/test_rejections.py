"""What an engine of pictures rejects, and what it leaves as it was."""

import msgspec
import numpy as np
import pytest
import torch

from lambda_split.diffusion.scheduler_config import SchedulerConfig
from lambda_split.errors import (
    NonFinite,
    PictureImpossible,
    PositionBeyondEnd,
    PositionGap,
    StateMismatch,
)
from lambda_split.wire.pictures.frames import PictureFrame, PictureFrameKind
from lambda_split.wire.pictures.server_session import PictureStart, PictureStep
from lambda_split.wire.pictures.settings import Denoising, serialize_settings
from tests.cloud.pictures.bench import DPM, EULER, FP32, NF4_DELTA, STEPS, normal


@pytest.mark.parametrize(("taken", "asked"), [(0, 1), (0, 3), (2, 1), (2, 3)])
def test_a_step_from_nowhere_is_a_gap(bench, taken, asked):
    settings, session = bench.settings(), bench.open()
    bench.begin(session, settings)
    payloads = [bench.step(session, settings, step) for step in range(taken)]
    with pytest.raises(PositionGap) as caught:
        bench.step(session, settings, asked)
    assert caught.value.wire_fields() == {"start": asked, "length": taken}
    bench.step(session, settings, taken)
    # The first is from the seed, whatever was before.
    assert bench.step(session, settings, 0) == (payloads or [bench.step(session, settings, 0)])[0]


@pytest.mark.parametrize(
    ("form", "step", "tensors", "expected"),
    [(FP32, 0, 2, 1), (FP32, 1, 2, 1), (NF4_DELTA, 1, 1, 2), (NF4_DELTA, 1, 3, 2)],
)
def test_a_state_has_as_many_tensors_as_its_step_needs(bench, form, step, tensors, expected):
    settings, session = bench.settings(), bench.open(form=form)
    bench.begin(session, settings)
    state = [normal((1, 4, 6, 8), seed) for seed in range(tensors)]
    with pytest.raises(StateMismatch) as caught:
        bench.step(session, settings, step, state, form=form)
    assert caught.value.wire_fields() == {"found": tensors, "expected": expected}
    assert bench.state(session).step == 0
    bench.step(session, settings, 0, form=form)


@pytest.mark.parametrize(
    "changes",
    [
        {"scheduler": SchedulerConfig(class_name="TCDScheduler")},
        {"scheduler": msgspec.structs.replace(EULER, beta_schedule="unheard-of")},
        {"scheduler": msgspec.structs.replace(EULER, num_train_timesteps=3)},
    ],
    ids=["solver", "schedule", "steps"],
)
def test_a_picture_that_cannot_be_made_is_told_and_ends_the_one_before(bench, changes):
    before, session = bench.settings(), bench.open()
    bench.begin(session, before)
    bench.step(session, before, 0)
    settings = bench.settings(denoising=msgspec.structs.replace(before.denoising, **changes))
    (outcome,) = bench.run(bench.start(session, settings))
    assert type(outcome) is PictureImpossible
    for step in (0, 1):
        with pytest.raises(PositionGap) as caught:
            bench.step(session, settings, step)
        assert caught.value.wire_fields() == {"start": step, "length": 0}
    again = bench.settings()
    bench.begin(session, again)
    bench.step(session, again, 0)


def test_a_step_without_a_picture_is_a_gap(bench):
    with pytest.raises(PositionGap):
        bench.step(bench.open(), bench.settings(), 0)


def test_a_step_beyond_those_that_the_solver_takes_is_told(bench):
    """A clipped schedule has fewer steps than were asked for."""
    scheduler = msgspec.structs.replace(DPM, timestep_spacing="trailing", lambda_min_clipped=-1.0)
    settings = bench.settings(denoising=Denoising(scheduler=scheduler, steps=STEPS, seed=3))
    taken = bench.trajectory(settings).solver.steps
    assert taken < STEPS
    session = bench.open()
    bench.begin(session, settings)
    for step in range(taken):
        bench.step(session, settings, step)
    for tensors in ([], [normal((1, 4, 6, 8), 0)]):
        with pytest.raises(PositionBeyondEnd) as caught:
            bench.step(session, settings, taken, tensors)
        assert caught.value.wire_fields() == {"end": taken + 1, "max_positions": taken}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_comes_in_is_finite(bench, value):
    settings, session = bench.settings(), bench.open()
    context, pooled = bench.conditioning(settings)
    head, data = serialize_settings(settings), context.tobytes() + pooled.tobytes()
    bad = np.float32(value).tobytes()
    frame = PictureFrame(
        PictureFrameKind.PICTURE, FP32, 0, 2, 0, head + data[:-4] + bad, settings_bytes=len(head)
    )
    with pytest.raises(NonFinite) as caught:
        bench.work(session, PictureStart(settings, frame))
    assert caught.value.where == "incoming"
    frame = PictureFrame(PictureFrameKind.STEP, FP32, 1, 1, 0, bad * (4 * 6 * 8))
    with pytest.raises(NonFinite):
        bench.work(session, PictureStep(settings, frame))


def test_what_comes_out_is_finite_and_a_failing_step_leaves_the_picture_as_it_was(bench):
    settings, session = bench.settings(), bench.open()
    bench.begin(session, settings)
    bench.step(session, settings, 0)
    before = bench.state(session)
    with pytest.raises(NonFinite) as caught:
        bench.step(session, settings, 1, [np.full((1, 4, 6, 8), 3e38, np.float32)])
    assert caught.value.where == "outgoing"
    assert bench.state(session) is before
    bench.step(session, settings, 1)


def test_a_fault_of_the_denoiser_leaves_the_picture_as_it_was(bench, monkeypatch):
    settings, session = bench.settings(), bench.open()
    bench.begin(session, settings)
    bench.step(session, settings, 0)
    before = bench.state(session)

    def failing(*_):
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(bench.denoiser, "predict", failing)
        with pytest.raises(PictureImpossible):
            bench.step(session, settings, 1)
    assert bench.state(session) is before
    bench.step(session, settings, 1)


def test_a_step_can_be_taken_back_once(bench):
    settings, session = bench.settings(), bench.open()
    bench.begin(session, settings)
    bench.step(session, settings, 0)
    payload = bench.step(session, settings, 1)
    for _ in range(2):
        bench.engine.revert(session)
        assert bench.state(session).step == 1
    assert bench.step(session, settings, 1) == payload

"""Pictures of several sessions in one run of the denoiser."""

import numpy as np
import pytest

from lambda_split.errors import PositionGap, ServerDraining
from lambda_split.wire.pictures.settings import Denoising
from tests.cloud.pictures.bench import DPM, STEPS, Bench


def counted(bench, monkeypatch):
    rows, predict = [], bench.denoiser.predict

    def counting(latents, *rest):
        rows.append(len(latents))
        return predict(latents, *rest)

    monkeypatch.setattr(bench.denoiser, "predict", counting)
    return rows


@pytest.mark.parametrize(
    ("max_rows", "runs"), [(10_000, [6]), (5 * 48, [3, 3]), (1, [2, 1, 3])], ids=str
)
def test_pictures_in_one_run_are_what_each_is_alone(bench, monkeypatch, max_rows, runs):
    bench.engine = bench.make_engine(max_rows=max_rows)
    several = [
        bench.settings(guidance=3.0),
        bench.settings(negative="none", denoising=Denoising(scheduler=DPM, steps=STEPS, seed=1)),
        bench.settings(images=3, negative="none"),
    ]
    told = [bench.conditioning(each, seed) for seed, each in enumerate(several)]
    alone = []
    for settings, conditioning in zip(several, told, strict=True):
        session = bench.open()
        bench.begin(session, settings, conditioning)
        alone.append([bench.step(session, settings, step) for step in range(STEPS)])
        bench.engine.close(session)
    rows = counted(bench, monkeypatch)
    sessions = [bench.open() for _ in several]
    starts = map(bench.start, sessions, several, told)
    assert [outcome.payload for outcome in bench.run(*starts)] == [b""] * 3
    for step in range(STEPS):
        outcomes = bench.run(
            *(bench.asked(*each, step) for each in zip(sessions, several, strict=True))
        )
        for settings, outcome, expected in zip(several, outcomes, alone, strict=True):
            np.testing.assert_allclose(
                bench.noise(outcome.payload, settings),
                bench.noise(expected[step], settings),
                rtol=1e-3,
                atol=1e-3,
            )
    assert rows == runs * STEPS


def test_pictures_of_other_sizes_run_apart(bench, monkeypatch):
    several = [bench.settings(), bench.settings(width=4), bench.settings(context_tokens=3)]
    sessions = [bench.open() for _ in several]
    for session, settings in zip(sessions, several, strict=True):
        bench.begin(session, settings)
    rows = counted(bench, monkeypatch)
    works = [bench.asked(*each, 0) for each in zip(sessions, several, strict=True)]
    sizes = [len(outcome.payload) for outcome in bench.run(*works)]
    assert sizes == [4 * 4 * 6 * 8, 4 * 4 * 6 * 4, 4 * 4 * 6 * 8]
    assert rows == [2, 2, 2]


def test_who_is_at_fault_fails_alone(bench, monkeypatch):
    settings, sessions = bench.settings(), [bench.open() for _ in range(3)]
    for session in sessions:
        bench.begin(session, settings)
    predict = bench.denoiser.predict

    def failing(latents, *rest):
        if (latents == 1).all(dim=(1, 2, 3)).any():
            raise ValueError("a hard one")
        return predict(latents, *rest)

    monkeypatch.setattr(bench.denoiser, "predict", failing)
    scale = bench.trajectory(settings).solver.rows[0].input_scale
    latents = np.full((1, 4, 6, 8), 1 / scale, np.float32)
    works = [bench.asked(session, settings, 0) for session in sessions[:2]]
    first, hard, gap = bench.run(
        works[0],
        bench.asked(sessions[2], settings, 0, [latents]),
        bench.asked(sessions[1], settings, 2),
    )
    assert len(first.payload) == 4 * 4 * 6 * 8
    assert isinstance(hard, ValueError)
    assert isinstance(gap, PositionGap)


def test_a_draining_engine_ends_its_step():
    bench = Bench("sd1")
    settings, session = bench.settings(), bench.open()
    bench.begin(session, settings)
    bench.engine.interrupt()
    with pytest.raises(ServerDraining):
        bench.step(session, settings, 0)

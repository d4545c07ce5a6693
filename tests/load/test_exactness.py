"""The short form of ``python -m tests.load``."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest
import torch

from edge_runtime.sampling import probabilities
from tests.load.plan import Case
from tests.load.reference import WholeModel
from tests.load.running import SPLITS, LoadSettings, Prepared, prepare, run_load
from tests.tiny_models import save_tiny

SETTINGS = LoadSettings(
    clients=8,
    generations=60,
    longest_prompt=96,
    new_tokens=16,
    families=6,
    cut_share=0.75,
    cut_bytes=(1_000, 50_000),
    within_s=500.0,
)
SMALL_POOL = "300KB"  # twelve blocks for sixteen clients; a session may need all of them


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Prepared]:
    folder = tmp_path_factory.mktemp("load")
    # Every export takes seconds: the second family does with two splits.
    splits = {"llama": SPLITS, "gemma2": SPLITS[1:]}
    return {variant: prepare(variant, folder, own) for variant, own in splits.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "chunk"), [("llama", 64), ("gemma2", 7), ("llama", 1)])
def test_every_output_under_load_is_that_of_its_solo_run(models, variant, chunk) -> None:
    settings = dataclasses.replace(SETTINGS, chunk_tokens=chunk)
    report = run_load([models[variant]], settings)
    print(report.summary())
    assert report.is_exact, report.summary()
    assert report.generations == settings.generations
    # All of it took place.
    assert report.tokens > settings.generations
    assert report.rollbacks
    assert report.cancels
    assert report.reconnects
    assert report.sessions > settings.clients


@pytest.mark.slow
def test_nothing_changes_where_sessions_lose_their_memory_all_the_time(models) -> None:
    settings = dataclasses.replace(
        SETTINGS, clients=16, generations=96, cut_share=0.5, kv_memory=SMALL_POOL
    )
    report = run_load([models["llama"]], settings)
    print(report.summary())
    assert report.is_exact, report.summary()
    assert report.generations == settings.generations
    assert report.evictions


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> WholeModel:
    folder: pathlib.Path = tmp_path_factory.mktemp("llama")
    save_tiny("llama", folder)
    return WholeModel(folder, frozenset({2}))


@pytest.mark.parametrize("seed", [None, 5])
def test_the_judge_sees_a_wrong_token_wherever_it_is(whole, seed) -> None:
    case = Case(tuple(range(10, 30)), 12, seed)
    right = whole.expected(case)
    assert whole.judge(case, right, whole=True) is None
    assert whole.judge(case, right[:5], whole=False) is None
    for place in range(len(right)):
        wrong = (*right[:place], (right[place] + 1) % 320, *right[place + 1 :])
        deviation = whole.judge(case, wrong, whole=True)
        assert deviation is not None
        assert deviation.place == place
        assert not deviation.is_rounding


@pytest.mark.parametrize("seed", [None, 5])
def test_the_judge_sees_tokens_that_are_missing_or_too_many(whole, seed) -> None:
    case = Case(tuple(range(10, 30)), 12, seed)
    right = whole.expected(case)
    for found in (right[:-1], (), (*right, 7)):
        deviation = whole.judge(case, found, whole=True)
        assert deviation is not None
        assert not deviation.is_rounding
    too_long = whole.judge(case, (*right, 7), whole=False)
    assert too_long is not None
    assert not too_long.is_rounding


def test_the_judge_knows_a_near_tie_of_logits(tmp_path) -> None:
    save_tiny("llama", tmp_path)
    whole = WholeModel(tmp_path, frozenset({2}))
    case = Case(tuple(range(10, 30)), 1, None)
    (best,) = whole.expected(case)
    other = 50 if best != 50 else 51
    with torch.inference_mode():
        largest = float(whole._model(torch.tensor([case.prompt])).logits[0, -1].max())
    weights = whole._model.get_output_embeddings().weight.data
    for gap, is_rounding in ((5e-5, True), (5e-4, False)):
        weights[other] = weights[best] * (1 - gap / largest)  # its logit lags by the gap
        deviation = whole.judge(case, (other,), whole=True)
        assert deviation is not None
        assert deviation.margin == pytest.approx(gap, abs=1e-5)
        assert deviation.is_rounding is is_rounding


def test_the_judge_knows_a_draw_at_the_border_of_two_tokens(whole) -> None:
    prompt = tuple(range(10, 30))
    with torch.inference_mode():
        logits = whole._model(torch.tensor([prompt])).logits[0, -1].numpy()
    borders = np.cumsum(probabilities(logits, [], Case(prompt, 1, 0).sampling))
    found: dict[bool, int] = {}
    for seed in range(20_000):
        point = float(np.random.Generator(np.random.PCG64(seed)).random())
        token = int(np.searchsorted(borders, point))
        distance = float(borders[token] - point)
        if distance > 3e-6:  # to the next token's share; nearer, rounding could hide the case
            found.setdefault(distance < 9e-5, seed)
        if len(found) == 2:
            break
    for is_rounding, seed in found.items():
        case = Case(prompt, 1, seed)
        (right,) = whole.expected(case)
        deviation = whole.judge(case, (right + 1,), whole=True)
        assert deviation is not None
        assert deviation.is_rounding is is_rounding
    assert len(found) == 2

"""Sampling gives transformers' distributions, and draws from them fairly and repeatably."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from edge_runtime.sampling import Sampler, SamplingSettings, _crossing, probabilities
from lambda_split.errors import LogitsInvalid, UsageError


def reference(logits, history, wanted):
    """What transformers' ``generate`` samples from; float64, so that only ties are borderline."""
    ids = torch.tensor([history], dtype=torch.long)
    scores = torch.from_numpy(logits)[None]
    if wanted.repetition_penalty != 1.0 and history:
        scores = RepetitionPenaltyLogitsProcessor(wanted.repetition_penalty)(ids, scores)
    scores = scores.double()
    scores = TemperatureLogitsWarper(float(wanted.temperature))(ids, scores)
    if wanted.top_k:
        scores = TopKLogitsWarper(wanted.top_k)(ids, scores)
    if wanted.top_p < 1.0:
        scores = TopPLogitsWarper(wanted.top_p)(ids, scores)
    if wanted.min_p > 0.0:
        scores = MinPLogitsWarper(wanted.min_p)(ids, scores)
    return scores.softmax(dim=-1)[0].numpy()


def borderline(logits, history, wanted):
    """Is a token so near to the limit of top-p or min-p that rounding decides on it?"""
    before = SamplingSettings(
        temperature=wanted.temperature,
        top_k=wanted.top_k,
        repetition_penalty=wanted.repetition_penalty,
    )
    scores = np.sort(reference(logits, history, before))
    near_p = np.abs(np.cumsum(scores) - (1 - wanted.top_p)) < 1e-6
    near_min = np.abs(scores / scores[-1] - wanted.min_p) < 1e-6 * max(wanted.min_p, 1e-6)
    return (wanted.top_p < 1 and near_p.any()) or (wanted.min_p > 0 and near_min.any())


filters = st.builds(
    SamplingSettings,
    temperature=st.floats(0.05, 5.0),
    top_k=st.integers(0, 40),
    top_p=st.one_of(st.just(1.0), st.floats(0.0, 1.0)),
    min_p=st.one_of(st.just(0.0), st.floats(0.0, 1.0)),
    repetition_penalty=st.one_of(st.just(1.0), st.floats(0.5, 2.0)),
)
some_logits = hnp.arrays(
    np.float32,
    st.integers(1, 60),
    # Either equal or well apart: float32 there and float64 here order near ties differently.
    elements=st.integers(-30 * 64, 30 * 64).map(lambda steps: steps / 64),
)


@settings(deadline=None, max_examples=300)
@given(logits=some_logits, seen=st.lists(st.integers(0, 59), max_size=8), wanted=filters)
@example(
    logits=np.array([1, 2, 3], np.float32),
    seen=[7],  # a token that the tokenizer has and the model has not
    wanted=SamplingSettings(temperature=1.0, repetition_penalty=1.5),
)
def test_probabilities_are_those_of_transformers(logits, seen, wanted):
    assume(not borderline(logits, seen, wanted))
    untouched = SamplingSettings(temperature=1.0, repetition_penalty=wanted.repetition_penalty)
    likely = reference(logits, seen, untouched)
    # Which of several equally likely tokens top-p keeps is up to an unstable sort in torch, so
    # tokens that are equally likely are compared as a group.
    ours = probabilities(logits, seen, wanted)
    ours = ours[np.lexsort((ours, likely))]
    theirs = reference(logits, seen, wanted)
    theirs = theirs[np.lexsort((theirs, likely))]
    np.testing.assert_array_equal(ours > 1e-30, theirs > 1e-30)
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("spread", [1.0, 4.0])
@pytest.mark.parametrize(
    "wanted",
    [
        SamplingSettings(temperature=0.7),
        SamplingSettings(temperature=1.3, top_k=50),
        SamplingSettings(temperature=0.8, top_p=0.95),
        SamplingSettings(temperature=1.0, top_p=0.1),
        SamplingSettings(temperature=1.0, min_p=0.05),
        SamplingSettings(temperature=0.9, top_k=200, top_p=0.9, min_p=0.01, repetition_penalty=1.2),
    ],
)
def test_probabilities_of_a_whole_vocabulary(wanted, spread):
    generator = np.random.default_rng(5)
    logits = (generator.normal(size=50_257) * spread).astype(np.float32)
    seen = generator.integers(0, 50_257, size=400).tolist()
    ours = probabilities(logits, seen, wanted)
    theirs = reference(logits, seen, wanted)
    # A token at the very limit may fall on either side: its probability is below rounding.
    assert np.sum((ours > 0) != (theirs > 0)) <= 1
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-6)


def test_ties_at_the_limit_of_top_p_go_to_smaller_ids():
    logits = np.array([1, 5, 1, 5, 1, 5, 5, 1], np.float32)
    kept = probabilities(logits, [], SamplingSettings(temperature=1.0, top_p=0.4)) > 0
    assert np.flatnonzero(kept).tolist() == [1, 3]
    # Everything tied: as many as reach top_p, counted from the first.
    kept = probabilities(np.zeros(2000, np.float32), [], SamplingSettings(1.0, top_p=0.3)) > 0
    assert np.flatnonzero(kept).tolist() == list(range(600))


def test_tokens_tied_with_the_last_of_top_k_all_stay():
    logits = np.array([3, 1, 2, 2, 2, 0], np.float32)
    kept = probabilities(logits, [], SamplingSettings(temperature=1.0, top_k=2)) > 0
    assert kept.tolist() == [True, False, True, True, True, False]


def test_greedy_takes_the_first_of_the_most_likely_and_draws_nothing():
    sampler = Sampler(SamplingSettings())
    assert sampler.sample(np.array([0, 7, 7, 1], np.float32), []) == 1
    assert sampler.drawn == 0


def test_greedy_comes_after_the_repetition_penalty():
    logits = np.array([1.0, 1.2, -5.0], np.float32)
    wanted = SamplingSettings(repetition_penalty=1.5)
    assert Sampler(wanted).sample(logits, [1, 1]) == 0
    assert probabilities(logits, [1, 1], wanted).tolist() == [1.0, 0.0, 0.0]
    assert logits.tolist() == np.array([1.0, 1.2, -5.0], np.float32).tolist()


@pytest.mark.parametrize(
    "wanted",
    [
        SamplingSettings(temperature=1.0, seed=11),
        SamplingSettings(temperature=0.8, top_k=40, top_p=0.9, min_p=0.02, seed=12),
    ],
)
def test_draws_are_as_frequent_as_they_are_likely(wanted):
    # 1300 tokens, so that the draw's two levels both matter.
    logits = (np.random.default_rng(3).normal(size=1300) * 2).astype(np.float32)
    expected = probabilities(logits, [], wanted)
    sampler = Sampler(wanted)
    draws = 20_000
    counts = np.bincount([sampler.sample(logits, []) for _ in range(draws)], minlength=1300)
    assert counts[expected == 0].sum() == 0
    # Pearson's statistic over tokens that are expected often enough, the others in one bin.
    often = expected * draws >= 5
    observed = np.append(counts[often], counts[~often].sum())
    wished = np.append(expected[often], expected[~often].sum()) * draws
    observed, wished = observed[wished > 0], wished[wished > 0]
    statistic = np.sum((observed - wished) ** 2 / wished)
    freedom = len(wished) - 1
    assert abs(statistic - freedom) < 4 * math.sqrt(2 * freedom)


def test_tokens_of_weight_zero_are_never_drawn():
    logits = np.full(2000, -np.inf, np.float32)
    logits[[3, 1999]] = 0.0
    sampler = Sampler(SamplingSettings(temperature=1.0, seed=1))
    assert {sampler.sample(logits, []) for _ in range(100)} == {3, 1999}


def test_rounding_at_the_ends_of_the_running_sum_picks_no_token_of_weight_zero():
    weights = np.array([0, 0, 1, 2, 0], np.float32)
    assert _crossing(weights, -1e-17) == 2
    assert _crossing(weights, 1.0) == 3
    assert _crossing(weights, 3.0 + 1e-9) == 3


def test_a_seed_repeats_the_draws_and_a_sampler_can_be_taken_up_again():
    logits = np.random.default_rng(0).normal(size=500).astype(np.float32)
    wanted = SamplingSettings(temperature=1.0, seed=42)
    first = Sampler(wanted)
    tokens = [first.sample(logits, []) for _ in range(10)]
    second = Sampler(wanted)
    assert [second.sample(logits, []) for _ in range(10)] == tokens
    resumed = Sampler(wanted, drawn=6)
    assert [resumed.sample(logits, []) for _ in range(4)] == tokens[6:]
    other = Sampler(SamplingSettings(temperature=1.0, seed=43))
    assert [other.sample(logits, []) for _ in range(10)] != tokens


def test_at_a_huge_temperature_what_had_no_chance_has_none():
    logits = np.array([1.0, -np.inf, 3.0, -2.0], np.float32)
    for temperature in (1e38, 1e39, 1e308):
        wanted = SamplingSettings(temperature=temperature, seed=1)
        assert probabilities(logits, [], wanted) == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])
        sampler = Sampler(wanted)
        assert {sampler.sample(logits, []) for _ in range(100)} == {0, 2, 3}


def test_a_tiny_temperature_is_greedy_and_not_a_number_error():
    logits = np.array([1, 3, 2], np.float32)
    for temperature in (1e-3, 1e-300):
        wanted = SamplingSettings(temperature=temperature, seed=0)
        assert probabilities(logits, [], wanted).tolist() == [0, 1, 0]
        assert Sampler(wanted).sample(logits, []) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("values", [[1, np.nan], [np.inf, 1], [-np.inf, -np.inf]])
def test_logits_without_a_finite_maximum_are_refused(values, temperature):
    logits = np.array(values, np.float32)
    wanted = SamplingSettings(temperature=temperature)
    with pytest.raises(LogitsInvalid):
        Sampler(wanted).sample(logits, [])
    with pytest.raises(LogitsInvalid):
        probabilities(logits, [], wanted)


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": "warm"},
        {"temperature": True},
        {"top_k": -1},
        {"top_k": 1.5},
        {"top_p": 1.01},
        {"top_p": -0.01},
        {"top_p": math.nan},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.inf},
        {"seed": -1},
        {"seed": 0.5},
        {"seed": True},
        {"seed": np.array([1, 2])},
    ],
)
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(UsageError, match=next(iter(values))):
        SamplingSettings(**values)


def test_numpys_numbers_are_as_good_as_pythons():
    given = SamplingSettings(seed=np.random.default_rng(1).integers(9), top_k=np.int32(4))
    assert type(given.seed) is type(given.top_k) is int
    assert type(SamplingSettings(temperature=np.float32(0.5)).temperature) is float
    logits = np.arange(9, dtype=np.float32)
    drawn = [
        Sampler(SamplingSettings(1.0, seed=seed)).sample(logits, []) for seed in (np.int8(7), 7)
    ]
    assert drawn[0] == drawn[1]


def test_a_sampler_cannot_have_drawn_less_than_nothing():
    with pytest.raises(UsageError):
        Sampler(SamplingSettings(), drawn=-1)

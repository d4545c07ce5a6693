"""Sessions never influence one another, and one session reuses what it has."""

from __future__ import annotations

import random

import pytest

from edge_runtime import TextGenerator
from edge_runtime.sampling import SamplingSettings
from lambda_split.errors import PromptEmpty, PromptTooLong, UsageError
from tests.servers import serving

PROMPTS = [list(range(5, 25)), list(range(60, 200)), [7], list(range(200, 260))]


@pytest.fixture(scope="module")
def server(checkpoint):
    with serving(str(checkpoint("llama")), "--dtype", "float32") as running:
        yield running


def _settings(number: int) -> SamplingSettings:
    return SamplingSettings(temperature=1.0, seed=number)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_interleaved_sessions_equal_solo_runs(seed, bundle, server) -> None:
    solo = []
    for number, prompt in enumerate(PROMPTS):
        with TextGenerator.open(bundle("llama"), server.url) as generator:
            result = generator.generate(prompt, max_new_tokens=40, sampling=_settings(number))
            solo.append((result.token_ids, result.text))
    order = random.Random(seed)
    generators = [TextGenerator.open(bundle("llama"), server.url) for _ in PROMPTS]
    streams = [
        generator.stream(prompt, max_new_tokens=40, sampling=_settings(number))
        for number, (generator, prompt) in enumerate(zip(generators, PROMPTS, strict=True))
    ]
    running = list(streams)
    while running:
        stream = order.choice(running)
        if next(stream, None) is None:
            running.remove(stream)
    assert [(s.result.token_ids, s.result.text) for s in streams] == solo
    for generator in generators:
        generator.close()


@pytest.mark.slow
@pytest.mark.parametrize("splits", [(1, 1), (0, 0)])
def test_a_longer_prompt_sends_only_what_is_new(splits, bundle, checkpoint) -> None:
    arguments = ("--head-layers", str(splits[0]), "--tail-layers", str(splits[1]))
    exported = bundle("llama", *splits)
    row = exported.manifest.geometry.hidden_size * 2  # fp16
    with serving(str(checkpoint("llama")), *arguments) as server:
        with TextGenerator.open(exported, server.url) as generator:
            first = generator.generate(PROMPTS[1], max_new_tokens=8)
            longer = [*PROMPTS[1], *first.token_ids[:4], 9, 10, 11]
            second = generator.generate(longer, max_new_tokens=8)
        with TextGenerator.open(exported, server.url) as generator:
            fresh = generator.generate(longer, max_new_tokens=8)
    assert second.token_ids == fresh.token_ids
    assert second.stats.cached_tokens == len(PROMPTS[1]) + 4
    new_positions = 3 + 7  # three of the prompt, seven of the eight sampled tokens are fed back
    assert new_positions * row <= second.stats.bytes_up < new_positions * (row + 64)


@pytest.mark.slow
def test_an_edited_prompt_rolls_all_three_parts_back(bundle, server) -> None:
    edited = [*PROMPTS[1][:50], 99, *PROMPTS[1][51:]]
    with TextGenerator.open(bundle("llama"), server.url) as generator:
        generator.generate(PROMPTS[1], max_new_tokens=8)
        result = generator.generate(edited, max_new_tokens=8)
        again = generator.generate(edited, max_new_tokens=8)
    with TextGenerator.open(bundle("llama"), server.url) as generator:
        fresh = generator.generate(edited, max_new_tokens=8)
    assert result.stats.cached_tokens == 50
    assert again.stats.cached_tokens == len(edited) - 1
    assert result.token_ids == again.token_ids == fresh.token_ids


@pytest.mark.slow
def test_a_stream_left_early_does_not_disturb_the_next(bundle, server) -> None:
    with TextGenerator.open(bundle("llama"), server.url) as generator:
        fresh = generator.generate(PROMPTS[0], max_new_tokens=12)
        abandoned = generator.stream(PROMPTS[3], max_new_tokens=50)
        next(abandoned)
        assert generator.generate(PROMPTS[0], max_new_tokens=12).token_ids == fresh.token_ids
        with pytest.raises(UsageError, match="another generation was started"):
            next(abandoned)
        with pytest.raises(UsageError, match="has not ended"):
            _ = abandoned.result


@pytest.mark.slow
def test_the_last_position_can_be_filled_and_no_more(bundle, server) -> None:
    with TextGenerator.open(bundle("llama"), server.url, max_positions=30) as generator:
        result = generator.generate(PROMPTS[0], max_new_tokens=100)
        assert len(result.token_ids) == 30 - len(PROMPTS[0]) + 1
        assert result.finish_reason == "length"
        with pytest.raises(PromptTooLong):
            generator.generate(list(range(31)), max_new_tokens=1)
        with pytest.raises(PromptEmpty):
            generator.generate([], max_new_tokens=1)
        with pytest.raises(UsageError, match="no token of this model"):
            generator.generate([5, 100_000], max_new_tokens=1)
        # Nothing of that did any harm.
        again = generator.generate(PROMPTS[0], max_new_tokens=100)
        assert again.token_ids == result.token_ids

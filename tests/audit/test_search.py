"""The vocabulary search finds what went through the head, in every kind of model."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from audit.attacks.open_weights import guess_from_length, nearest_embedding, public_tail, replay
from audit.attacks.search import SearchSettings, search
from audit.capture import Setting, Victim, capture
from audit.defending.noise import Defence
from audit.text_attacks import in_order, rounded
from audit.whole_model import load_whole
from lambda_split.partition import open_checkpoint
from lambda_split.split import Split
from tests.tiny_models import LAYERS, save_tiny

# Longer than the sliding windows of the families that have one.
PROMPT = tuple(np.random.default_rng(3).integers(3, 300, 22).tolist())
EXACT = SearchSettings(rounding=2**-10)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Whole models by name, each loaded once."""
    folder = tmp_path_factory.mktemp("models")
    loaded = {}

    def load(name):
        if name not in loaded:
            save_tiny(name, folder / name)
            loaded[name] = load_whole(open_checkpoint(str(folder / name)))
        return loaded[name]

    return load


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "gpt2", "mistral", "qwen3"])
@pytest.mark.parametrize("depth", [0, 2, LAYERS - 1])
def test_every_token_is_found_at_any_depth(models, name, depth) -> None:
    model = models(name)
    tap = capture(Victim(model, Setting(Split(depth, 0)), 1.0), PROMPT, 3)
    assert search(model, depth, tap.up, (), EXACT) == tap.token_ids[:-1]


def test_the_download_gives_the_prompt_as_well(models) -> None:
    model = models("llama")
    tap = capture(Victim(model, Setting(Split(1, 1)), 1.0), PROMPT, 2)
    assert search(model, LAYERS - 1, tap.down, PROMPT[:1], EXACT) == tap.token_ids[:-1]


def test_a_secret_order_of_channels_does_not_help(models) -> None:
    model = models("llama")
    setting = Setting(Split(1, 1), defence=Defence("permutation"))
    tap = capture(Victim(model, setting, 1.0, seed=5), PROMPT, 2)
    assert search(model, 1, tap.up, (), EXACT) != tap.token_ids[:-1]
    sorting = SearchSettings(rounding=2**-10, view=in_order)
    assert search(model, 1, tap.up, (), sorting) == tap.token_ids[:-1]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_rounding_to_few_bits_does_not_help(models, bits) -> None:
    model = models("llama")
    setting = Setting(Split(1, 1), defence=Defence("int", bits))
    tap = capture(Victim(model, setting, 1.0), PROMPT, 2)
    settings = SearchSettings(view=partial(rounded, bits=bits))
    assert search(model, 1, tap.up, (), settings) == tap.token_ids[:-1]


def test_several_beams_with_a_prior_find_what_noise_hides_from_one(models) -> None:
    model = models("llama")
    victim = Victim(model, Setting(Split(1, 1), defence=Defence("gaussian", 6.0)), 0.02)
    tap = capture(victim, PROMPT, 4)
    noise = 2 * victim.scale**2

    def right(settings):
        found = search(model, 1, tap.up, PROMPT[:1], settings)
        return sum(a == b for a, b in zip(found, tap.token_ids, strict=False))

    likely = SearchSettings(beams=4, prior=True, likelihood=lambda squared: -squared / noise)
    assert right(likely) >= right(SearchSettings())


def test_states_of_another_text_are_not_found(models) -> None:
    """The control: what was found above comes from the states."""
    model = models("llama")
    noise = np.random.default_rng(0).normal(size=(22, model.hidden_size)).astype(np.float32)
    found = search(model, 1, noise, (), SearchSettings())
    assert sum(a == b for a, b in zip(found, PROMPT, strict=True)) < 5


def test_the_public_tail_and_a_replay_give_the_reply(models) -> None:
    model = models("gemma2")
    tap = capture(Victim(model, Setting(Split(2, 1)), 1.0), PROMPT, 6)
    last = len(PROMPT) - 1
    assert public_tail(model, 1, tap.down)[last:] == tap.reply_ids
    assert replay(model, 2, tap.up)[last:] == tap.reply_ids


def test_the_nearest_embedding_finds_embeddings(models) -> None:
    model = models("llama")
    with torch.inference_mode():
        states = model.embedding(torch.tensor(PROMPT)).numpy()
    found = nearest_embedding(model, states)
    assert sum(a == b for a, b in zip(found, PROMPT, strict=True)) >= 20


def test_a_guess_knows_nothing_but_the_length(models) -> None:
    model = models("llama")
    guess = guess_from_length(model, 9, (1,), beams=2)
    assert len(guess) == 9
    assert guess[0] == 1

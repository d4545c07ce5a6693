"""Prompts are found from the text encoders' output, exactly, and not from noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audit.pictures import attack_prompts
from audit.pictures.model import PublicModel
from lambda_split.errors import UsageError
from lambda_split.wire.tensor_codecs import decode, encode
from tests.audit.pictures.some_model import form_of

PROMPTS = ["a red cat", "photo of a small blue dog, on the left", "", "circle " * 90]


def crossed(model: PublicModel, prompts: list[str]) -> list[np.ndarray]:
    """What arrives of each prompt's encoding: (tokens, width)."""
    context = model.encode(prompts).context
    form = form_of("fp16")
    return list(decode(encode(context, form), form, context.shape))


@pytest.mark.parametrize("name", ["sdxl", "sd1"])
def test_every_token_is_found(name, request) -> None:
    model = request.getfixturevalue(name)
    found = attack_prompts(model, crossed(model, PROMPTS), PROMPTS)
    assert found.recovered == found.total
    assert [one.tokens for one in found.prompts][2:] == [0, 75]  # what is too long is cut
    assert found.texts[:3] == ("a red cat", "photo of a small blue dog , on the left", "")
    assert all(one.off < 2e-3 for one in found.prompts)
    assert found.candidates == len(model.encoders[0].tokenizer.tokenizer.get_vocab())


def test_nothing_is_found_in_noise(sdxl) -> None:
    prompts = PROMPTS[:2]
    random = np.random.default_rng(0)
    noise = [
        random.normal(one.mean(), one.std(), one.shape).astype(np.float32)
        for one in crossed(sdxl, prompts)
    ]
    found = attack_prompts(sdxl, noise, prompts)
    assert found.recovered <= 0.1 * found.total
    assert all(one.off > 0.5 for one in found.prompts)


def test_batches_and_order_do_not_matter(sdxl) -> None:
    prompts = PROMPTS[:2]
    contexts = crossed(sdxl, prompts)
    whole = attack_prompts(sdxl, contexts, prompts)
    pieces = attack_prompts(sdxl, contexts[::-1], prompts[::-1], batch=50)
    assert whole.texts == pieces.texts[::-1]
    assert pieces.recovered == pieces.total


def test_a_limit_tries_the_likeliest(sdxl) -> None:
    prompts = PROMPTS[:2]
    contexts = crossed(sdxl, prompts)
    few = attack_prompts(sdxl, contexts, prompts, limit=40)
    one = attack_prompts(sdxl, contexts, prompts, limit=1)
    assert (few.candidates, one.candidates) == (40, 1)
    assert one.recovered <= few.recovered
    # A tenth of the vocabulary, where chance would be a tenth of the tokens.
    assert few.recovered > 0.3 * few.total


def test_candidates_get_what_they_would_get_alone(sdxl) -> None:
    for encoder in sdxl.encoders:
        ids = torch.tensor([encoder.tokenizer.encode("a red cat")])
        length = ids.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool).tril()
        wanted, _ = encoder.encode(["a red cat"])
        with torch.inference_mode():
            found = encoder.hidden(ids, torch.arange(length), mask)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [{"limit": 0}, {"batch": 0}])
def test_no_candidates_are_refused(sdxl, settings) -> None:
    with pytest.raises(UsageError, match="at least one candidate"):
        attack_prompts(sdxl, crossed(sdxl, ["a cat"]), ["a cat"], **settings)


def test_encodings_of_another_model_are_refused(sdxl, sd1) -> None:
    with pytest.raises(UsageError, match="another shape"):
        attack_prompts(sdxl, crossed(sd1, ["a cat"]), ["a cat"])
    with pytest.raises(UsageError, match="1 encodings of 2 prompts"):
        attack_prompts(sdxl, crossed(sdxl, ["a cat"]), ["a cat", "a dog"])

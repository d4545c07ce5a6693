"""Prompts become conditioning: cut or padded, of all encoders, and never with NaN in it."""

from __future__ import annotations

import logging

import msgspec
import numpy as np
import pytest

from edge_runtime.pictures.prompts import load_prompt_encoders
from lambda_split.errors import GraphInvalid, ManifestInvalid, TokenizerInvalid, UsageError
from tests.edge_runtime.pictures import some_pictures
from tests.edge_runtime.pictures.some_pictures import (
    CAT,
    DOG,
    END,
    ONE_THREAD,
    PAD,
    RED,
    START,
    TABLES,
    TOKENS,
    UNKNOWN,
    A,
)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    bundle = some_pictures.write_bundle(tmp_path_factory.mktemp("bundle"))
    return load_prompt_encoders(bundle, ONE_THREAD)


def _expected(*prompts: list[int]) -> np.ndarray:
    """What both encoders give, joined: (n, TOKENS, sum of widths)."""
    return np.concatenate([table[np.array(prompts)] for table in TABLES.values()], axis=2)


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        ("", [START, END, PAD, PAD, PAD, PAD]),
        ("cat", [START, CAT, END, PAD, PAD, PAD]),
        ("  a   red cat ", [START, A, RED, CAT, END, PAD]),
        ("a red cat dog", [START, A, RED, CAT, DOG, END]),
        ("a mouse", [START, A, UNKNOWN, END, PAD, PAD]),
    ],
)
def test_prompts_are_padded_with_the_pad_token(encoders, caplog, prompt, ids) -> None:
    with caplog.at_level(logging.WARNING):
        encoded = encoders.encode([prompt])
    assert np.array_equal(encoded.context, _expected(ids))
    assert not caplog.records
    assert encoders.unseen_tokens(prompt) == 0


@pytest.mark.parametrize("more", [1, 2, 500])
def test_what_is_cut_off_is_told_and_the_end_token_stays(encoders, caplog, more) -> None:
    prompt = "a red cat dog" + " dog" * more
    with caplog.at_level(logging.WARNING):
        encoded = encoders.encode([prompt])
    assert np.array_equal(encoded.context, _expected([START, A, RED, CAT, DOG, END]))
    assert f"the prompt has {TOKENS + more} tokens" in caplog.text
    assert f"the first {TOKENS} " in caplog.text
    assert "dog" not in caplog.text  # prompts are nobody's business
    assert encoders.unseen_tokens(prompt) == more


def test_several_prompts_keep_their_order(encoders) -> None:
    encoded = encoders.encode(["cat", "dog"])
    cat, dog = [START, CAT, END, PAD, PAD, PAD], [START, DOG, END, PAD, PAD, PAD]
    assert np.array_equal(encoded.context, _expected(cat, dog))
    assert encoded.context.dtype == np.float32
    assert encoders.tokens == TOKENS


def test_the_pooled_output_is_that_of_the_encoder_that_has_one(encoders) -> None:
    second = TABLES["text_encoder_2"]
    pooled = encoders.encode(["cat", "dog"]).pooled
    assert pooled is not None
    expected = [
        second[[START, word, END, PAD, PAD, PAD]].mean(axis=0, dtype=np.float64)
        for word in (CAT, DOG)
    ]
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)


def test_one_encoder_without_pooled_output(tmp_path) -> None:
    wanted = some_pictures.Wanted(
        tables={"text_encoder": TABLES["text_encoder"]},
        conditioning={"pooled_width": None},
        pools=False,
    )
    bundle = some_pictures.write_bundle(tmp_path, wanted)
    encoded = load_prompt_encoders(bundle, ONE_THREAD).encode(["cat"])
    first = TABLES["text_encoder"][[START, CAT, END, PAD, PAD, PAD]]
    assert np.array_equal(encoded.context[0], first)
    assert encoded.pooled is None


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_encoder_that_gives_nan_is_named(tmp_path, name, bad) -> None:
    table = TABLES[name].copy()
    table[CAT, 1] = bad
    wanted = some_pictures.Wanted(tables=TABLES | {name: table})
    encoders = load_prompt_encoders(some_pictures.write_bundle(tmp_path, wanted), ONE_THREAD)
    encoders.encode(["dog"])
    with pytest.raises(GraphInvalid, match=rf"{name}/model\.onnx.*NaN"):
        encoders.encode(["dog", "cat"])


def test_nan_in_the_pooled_output_alone(tmp_path) -> None:
    """The sum over positions is beyond float32, though each of them is not."""
    table = np.full_like(TABLES["text_encoder_2"], 3e38)
    wanted = some_pictures.Wanted(tables=TABLES | {"text_encoder_2": table})
    encoders = load_prompt_encoders(some_pictures.write_bundle(tmp_path, wanted), ONE_THREAD)
    with pytest.raises(GraphInvalid, match=r"text_encoder_2/model\.onnx.*NaN"):
        encoders.encode(["cat"])


def test_a_graph_that_fails_is_named(tmp_path) -> None:
    """A table without the words that the tokenizer knows."""
    wanted = some_pictures.Wanted(tables=TABLES | {"text_encoder": TABLES["text_encoder"][:2]})
    encoders = load_prompt_encoders(some_pictures.write_bundle(tmp_path, wanted), ONE_THREAD)
    with pytest.raises(GraphInvalid, match=r"text_encoder/model\.onnx"):
        encoders.encode(["cat"])


def test_half_a_surrogate_pair_is_no_prompt(encoders) -> None:
    with pytest.raises(UsageError):
        encoders.unseen_tokens("\ud800")
    with pytest.raises(UsageError):
        encoders.encode(["a \ud800"])


def test_a_bundle_that_says_otherwise_than_its_graphs(tmp_path) -> None:
    bundle = some_pictures.write_bundle(tmp_path)
    first, second = bundle.manifest.encoders
    for wrong in (
        {"encoders": (msgspec.structs.replace(first, width=9), second)},
        {"encoders": (msgspec.structs.replace(first, max_tokens=TOKENS + 1), second)},
        {"conditioning": msgspec.structs.replace(bundle.manifest.conditioning, pooled_width=9)},
        {"conditioning": msgspec.structs.replace(bundle.manifest.conditioning, pooled_width=None)},
    ):
        manifest = msgspec.structs.replace(bundle.manifest, **wrong)
        with pytest.raises(GraphInvalid, match=r"model\.onnx"):
            load_prompt_encoders(msgspec.structs.replace(bundle, manifest=manifest), ONE_THREAD)
    manifest = msgspec.structs.replace(bundle.manifest, graphs={})
    with pytest.raises(ManifestInvalid, match="text_encoder"):
        load_prompt_encoders(msgspec.structs.replace(bundle, manifest=manifest), ONE_THREAD)


def test_a_file_that_is_no_tokenizer(tmp_path) -> None:
    bundle = some_pictures.write_bundle(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerInvalid):
        load_prompt_encoders(bundle, ONE_THREAD)

"""Verification measures what it says, and sees what it is there to see."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pytest

from export.verification import (
    HeadReference,
    TailReference,
    _calls,
    compare,
    reference_head,
    run_head,
    sample_text,
    sample_tokens,
)
from lambda_split.errors import VerificationFailed
from lambda_split.partition import load_head, open_checkpoint
from lambda_split.split import Split

RNG = np.random.default_rng(0)
TOKENS, WIDTH, VOCABULARY = 12, 16, 50
HEAD = HeadReference(
    np.arange(TOKENS)[None], RNG.normal(size=(1, TOKENS, WIDTH)).astype(np.float32)
)
TAIL = TailReference(
    HEAD.hidden,
    np.arange(TOKENS),
    RNG.normal(size=(1, TOKENS, VOCABULARY)).astype(np.float32),
)


def test_equal_graphs_have_no_error() -> None:
    found = compare(HEAD, HEAD.hidden, TAIL, TAIL.logits, "fp32")
    assert found.head_max_error == found.head_relative_error == found.logits_max_error == 0
    assert found.kl_divergence == 0
    assert found.top1_agreement == 1
    assert found.tokens == TOKENS


def test_a_constant_added_to_all_logits_of_a_position_is_no_error() -> None:
    found = compare(HEAD, HEAD.hidden, TAIL, TAIL.logits + np.float32(2), "fp32")
    assert found.kl_divergence < 1e-9
    assert found.logits_max_error == pytest.approx(2)


def test_divergence_is_the_textbook_one() -> None:
    other = (TAIL.logits + 0.1 * RNG.normal(size=TAIL.logits.shape)).astype(np.float32)
    p, q = (
        np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(-1, keepdims=True)
        for x in (TAIL.logits, other)
    )
    expected = (p * np.log(p / q)).sum(-1).mean()
    found = compare(HEAD, HEAD.hidden, TAIL, other, "int4")
    assert found.kl_divergence == pytest.approx(expected, rel=1e-6)
    assert found.top1_agreement == (TAIL.logits.argmax(-1) == other.argmax(-1)).mean()


@pytest.mark.parametrize("weights", ["fp32", "fp16", "int8", "int4"])
def test_unrelated_results_are_refused_whatever_the_format(weights) -> None:
    hidden = np.roll(HEAD.hidden, 1, axis=1)
    with pytest.raises(VerificationFailed, match="head"):
        compare(HEAD, hidden, TAIL, TAIL.logits, weights)
    with pytest.raises(VerificationFailed, match="logits"):
        compare(HEAD, HEAD.hidden, TAIL, np.roll(TAIL.logits, 1, axis=1), weights)


def test_near_uniform_logits_are_compared_by_their_shape_not_their_size() -> None:
    # Agreement of the top token is chance here, and the divergence is nearly 0 even for nonsense.
    tail = TailReference(TAIL.hidden, TAIL.wanted, TAIL.logits * np.float32(1e-4))
    noise = (1e-5 * RNG.normal(size=TAIL.logits.shape)).astype(np.float32)
    compare(HEAD, HEAD.hidden, tail, tail.logits + noise, "int8")
    with pytest.raises(VerificationFailed, match="logits"):
        compare(HEAD, HEAD.hidden, tail, np.roll(tail.logits, 1, axis=1), "int4")


def test_what_is_not_a_number_is_refused() -> None:
    broken = HEAD.hidden.copy()
    broken[0, 3, 4] = np.nan
    with pytest.raises(VerificationFailed):
        compare(HEAD, broken, TAIL, TAIL.logits, "int4")
    broken = TAIL.logits.copy()
    broken[0, 3, 4] = np.inf
    with np.errstate(invalid="ignore"), pytest.raises(VerificationFailed):
        compare(HEAD, HEAD.hidden, TAIL, broken, "int4")


def test_a_damaged_weight_is_seen(export, checkpoint_folder, tmp_path) -> None:
    bundle = export("llama")
    folder = shutil.copytree(bundle.path, tmp_path / "damaged")
    raw = bytearray((folder / "weights.data").read_bytes())
    raw[: 64 * 64 * 4] = np.zeros(64 * 64, np.float32).tobytes()
    (folder / "weights.data").write_bytes(raw)
    head = load_head(open_checkpoint(str(checkpoint_folder("llama"))), Split())
    reference = reference_head(head, np.arange(3, 43)[None])
    hidden = run_head(folder / "head.onnx", bundle.manifest.graphs["head"], reference)
    with pytest.raises(VerificationFailed, match="head"):
        compare(reference, hidden, TAIL, TAIL.logits, "int4")


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 20, 384])
def test_the_calls_cover_every_position_and_step_back(tokens) -> None:
    calls = _calls(tokens)
    held = 0
    for call in calls:
        assert call.start <= held  # no gap
        held = call.stop
    assert held == tokens
    if tokens >= 20:
        assert any(call.start < before.stop for before, call in itertools.pairwise(calls))
        assert any(len(call) == 1 for call in calls)
        assert any(len(call) > 1 and call.start > 0 for call in calls)


def test_sample_tokens_fit_model_and_positions() -> None:
    assert sample_tokens([5, 900, 6], 100, 384).tolist() == [[5, 6]]
    assert sample_tokens(list(range(50)), 100, 10).shape == (1, 10)
    assert sample_tokens([900], 5, 384).tolist() == [[0, 1, 2, 3, 4]]
    assert 1500 < len(sample_text()) < 4000

"""Log-probabilities against torch, and the texts of single tokens."""

from __future__ import annotations

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.logprobs import check_alternatives, token_logprobs
from edge_runtime.token_text import text_of_token
from edge_runtime.tokenizer import Tokenizer
from lambda_split.errors import UsageError


@given(
    values=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=60),
    top=st.integers(0, 20),
    data=st.data(),
)
def test_they_are_the_softmax_of_the_logits(values, top, data) -> None:
    logits = np.array(values, np.float32)
    token = data.draw(st.integers(0, len(values) - 1))
    before = logits.copy()
    found = token_logprobs(logits, token, top)
    assert (logits == before).all()
    wanted = torch.tensor(values, dtype=torch.float64).log_softmax(0)
    assert found.token_id == token
    assert found.logprob == pytest.approx(wanted[token].item(), abs=1e-9)
    order = sorted(range(len(values)), key=lambda place: (-logits[place], place))[:top]
    assert [place for place, _ in found.top] == order
    for place, logprob in found.top:
        assert logprob == pytest.approx(wanted[place].item(), abs=1e-9)


def test_what_can_never_come_has_minus_infinity() -> None:
    found = token_logprobs(np.array([0, -np.inf], np.float32), 1, 2)
    assert found.logprob == -np.inf
    assert found.top == ((0, 0.0), (1, -np.inf))


@pytest.mark.parametrize("top", [-1, 21, 1.5, "3", None])
def test_other_numbers_of_alternatives_are_refused(top) -> None:
    with pytest.raises(UsageError, match="top_logprobs"):
        check_alternatives(top)


def _byte_level() -> Tokenizer:
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    names = [*alphabet, "Ġfox", "Ċ", "<end>"]
    model = tokenizers.models.BPE(
        vocab={name: place for place, name in enumerate(dict.fromkeys(names))}, merges=[]
    )
    made = tokenizers.Tokenizer(model)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<end>"])
    return Tokenizer(made, made.get_vocab_size())


def _sentence_pieces() -> Tokenizer:
    names = ["<unk>", "▁fox", "fox", "<0xE2>", "<0x41>"]
    model = tokenizers.models.BPE(
        vocab={name: place for place, name in enumerate(names)}, merges=[], byte_fallback=True
    )
    made = tokenizers.Tokenizer(model)
    kinds = tokenizers.decoders
    made.decoder = kinds.Sequence(
        [kinds.Replace("▁", " "), kinds.ByteFallback(), kinds.Fuse(), kinds.Strip(" ", 1, 0)]
    )
    return Tokenizer(made, made.get_vocab_size())


@pytest.mark.parametrize(
    ("make", "name", "text", "data"),
    [
        (_byte_level, "Ġfox", " fox", b" fox"),
        (_byte_level, "Ċ", "\n", b"\n"),
        (_byte_level, "A", "A", b"A"),
        (_byte_level, "â", "\\xe2", b"\xe2"),
        (_byte_level, "<end>", "<end>", b"<end>"),
        (_sentence_pieces, "▁fox", " fox", b" fox"),
        (_sentence_pieces, "fox", "fox", b"fox"),
        (_sentence_pieces, "<0xE2>", "\\xe2", b"\xe2"),
        (_sentence_pieces, "<0x41>", "A", b"A"),
    ],
)
def test_the_text_of_a_token_and_its_bytes(make, name, text, data) -> None:
    tokenizer = make()
    found = text_of_token(tokenizer, tokenizer._implementation.token_to_id(name))
    assert (found.text, found.data) == (text, data)


def test_a_token_that_only_the_model_knows_has_no_text() -> None:
    found = text_of_token(_byte_level(), 9999)
    assert (found.text, found.data) == ("", b"")

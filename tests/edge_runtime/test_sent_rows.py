"""What the device keeps of what it sent: it reads back as the trunk read it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.sent_rows import SentRows
from lambda_split.wire.codecs import decode, encode
from lambda_split.wire.frames import Codec

WIDTH = 8


def _rows(seed: int, tokens: int, *, large: bool) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(tokens, WIDTH)).astype(np.float32)
    if large:
        rows[::2] *= 1e6  # beyond fp16: every other row travels scaled
    return rows


@pytest.mark.parametrize("codec", Codec)
@given(
    chunks=st.lists(
        st.tuples(st.integers(0, 60), st.integers(1, 20), st.booleans()), min_size=1, max_size=8
    ),
    window=st.tuples(st.integers(0, 60), st.integers(1, 60)),
)
def test_any_window_reads_back_what_was_sent(codec, chunks, window) -> None:
    sent = SentRows(codec, WIDTH)
    expected = np.zeros((0, WIDTH), np.float32)
    for seed, (wish, tokens, large) in enumerate(chunks):
        start = min(wish, len(expected))
        rows = _rows(seed, tokens, large=large)
        encoded = encode(rows, codec)
        sent.append(start, tokens, encoded)
        seen = decode(encoded.payload, codec, tokens, WIDTH, scaled=encoded.scaled)
        expected = np.concatenate([expected[:start], seen])
    assert sent.length == len(expected)
    start, tokens = window
    tokens = min(tokens, sent.length - start)
    if tokens > 0:
        encoded = sent.read(start, tokens)
        found = decode(encoded.payload, codec, tokens, WIDTH, scaled=encoded.scaled)
        assert np.array_equal(found, expected[start : start + tokens])


def test_truncating_forgets_the_end() -> None:
    sent = SentRows(Codec.FP16, WIDTH)
    rows = _rows(0, 10, large=True)
    sent.append(0, 10, encode(rows, Codec.FP16))
    sent.truncate(4)
    assert sent.length == 4
    assert len(sent.read(0, 4).payload) == 4 + 4 * WIDTH * 2
    sent.truncate(40)
    assert sent.length == 4

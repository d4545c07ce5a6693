"""How prompts are cut into pieces."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.pieces import piece_lengths


@given(tokens=st.integers(1, 100_000), longest=st.integers(1, 5000))
def test_pieces_make_up_the_prompt(tokens, longest) -> None:
    lengths = piece_lengths(tokens, longest)
    assert sum(lengths) == tokens
    assert 1 <= min(lengths) <= max(lengths) <= longest
    # None is so short that it costs much for little, unless it has to be.
    assert min(lengths) >= min(tokens, longest, 32) // 2


@given(tokens=st.integers(256, 100_000), longest=st.integers(32, 5000))
def test_the_first_and_the_last_piece_are_short(tokens, longest) -> None:
    lengths = piece_lengths(tokens, longest)
    assert max(lengths[0], lengths[-1]) <= max(32 * 2, tokens // 7)
    assert all(b <= 2.5 * a and a <= 2.5 * b for a, b in itertools.pairwise(lengths))


@pytest.mark.parametrize(
    ("tokens", "longest", "lengths"),
    [
        (1, 128, [1]),
        (34, 128, [34]),
        (63, 128, [63]),
        (64, 128, [32, 32]),
        (8, 3, [3, 3, 2]),
        (129, 128, [33, 32, 32, 32]),
        (512, 128, [32, *[64] * 7, 32]),
        (513, 128, [32, 65, *[64] * 6, 32]),
        (2048, 128, [32, 64, *[124] * 11, *[123] * 4, 64, 32]),
        (2048, 512, [32, 64, 128, *[267] * 4, *[266] * 2, 128, 64, 32]),
        (2048, 16, [16] * 128),
    ],
)
def test_literal_cuts(tokens, longest, lengths) -> None:
    assert piece_lengths(tokens, longest) == lengths

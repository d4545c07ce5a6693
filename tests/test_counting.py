"""Numbers of things, in words."""

from __future__ import annotations

import pytest

from lambda_split.counting import counted
from lambda_split.errors import PromptTooLong, SplitImpossible


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "0 tokens"), (1, "1 token"), (2, "2 tokens"), (12_345, "12,345 tokens")],
)
def test_one_is_one(number, expected) -> None:
    assert counted(number, "token") == expected


def test_errors_count_so_too() -> None:
    assert "2 tokens but the session holds 1 position: " in str(PromptTooLong("less", 2, 1))
    assert "from a model of 1 layer: " in str(SplitImpossible(1, 1, 1))

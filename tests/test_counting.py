"""Numbers of things, in words."""

from __future__ import annotations

import pytest

from lambda_split.counting import counted


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "0 tokens"), (1, "1 token"), (2, "2 tokens"), (12_345, "12,345 tokens")],
)
def test_one_is_one(number, expected) -> None:
    assert counted(number, "token") == expected

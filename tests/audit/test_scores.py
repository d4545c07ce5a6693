from __future__ import annotations

from audit.scores import Estimate, Score, bleu, estimate, score


def test_tokens_count_where_they_stand() -> None:
    assert score((5, 6, 7), (5, 7, 6)) == Score(1, 3)


def test_what_everybody_knows_does_not_count() -> None:
    assert score((1, 6, 7), (1, 6, 9), frozenset({1})) == Score(1, 2)


def test_what_was_not_found_is_wrong_and_more_than_was_asked_changes_nothing() -> None:
    assert score((5, 6, 7), (5,)) == Score(1, 3)
    assert score((5,), (5, 6, 7)) == Score(1, 1)


def test_the_estimate_is_over_tokens_and_its_interval_over_texts() -> None:
    found = estimate([Score(10, 10), Score(0, 30)])
    assert found.value == 0.25
    assert found.low == 0.0
    assert found.high == 1.0


def test_equal_texts_leave_no_doubt() -> None:
    assert estimate([Score(3, 4)] * 5) == Estimate(0.75, 0.75, 0.75)


def test_where_nothing_counts_there_is_no_share() -> None:
    assert estimate([Score(0, 0)] * 2) == Estimate(0.0, 0.0, 0.0)


def test_bleu_of_the_same_and_of_something_else() -> None:
    text = "the quick brown fox jumps over the lazy dog"
    assert round(bleu([text], [text])) == 100
    assert bleu([text], ["nothing of it is here at all today"]) < 5

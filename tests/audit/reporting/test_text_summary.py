from __future__ import annotations

import pytest

from audit.reporting.text_summary import best_point, curves, defence_sentence, verdict
from tests.audit.some_results import SAMPLE, audit


def test_a_curve_has_the_best_attack_and_the_mean_over_seeds() -> None:
    none, weak, strong = curves(SAMPLE)["none"], *curves(SAMPLE)["gaussian"]
    assert (none[0].recovered, none[0].rise) == (1.0, 0.0)
    assert (weak.recovered, round(weak.rise, 9)) == (0.9, 0.03)
    assert strong.recovered == pytest.approx((0.7 + 0.3) / 2)
    assert strong.spread == (0.3, 0.7)
    assert strong.rise == pytest.approx((0.5 + 1.5) / 2)


def test_the_best_point_may_cost_no_more_than_allowed() -> None:
    assert best_point(SAMPLE).strength == 1.0
    assert best_point(SAMPLE, most_rise=2.0).strength == 2.0
    assert best_point(SAMPLE, most_rise=0.01) is None


def test_what_is_said_is_what_was_found() -> None:
    assert "gaussian 1 is the best: 90% of" in defence_sentence(SAMPLE)
    assert "That is no protection." in defence_sentence(SAMPLE)
    assert "practically all of your prompt (100.0% of its tokens)" in verdict(
        SAMPLE, "open-weights"
    )
    assert "about half of your prompt" in verdict(SAMPLE, "trunk-only")
    assert "1,000 tokens" in verdict(SAMPLE, "trunk-only")
    assert "Guessing gets 0% right" in verdict(SAMPLE, "tls-tapper")


def test_without_defences_none_is_praised() -> None:
    plain = audit(SAMPLE.findings[:4], SAMPLE.costs[:1])
    assert defence_sentence(plain) == "None was tried in this audit."

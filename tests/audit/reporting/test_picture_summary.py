from __future__ import annotations

import msgspec
import pytest

from audit.picture_results import LikenessRecord
from audit.reporting.picture_summary import (
    clearest,
    format_sentence,
    picture_verdict,
    psnr_in_words,
    ssim_in_words,
)
from audit.scores import Estimate
from tests.audit.some_results import pictures


def test_what_is_said_is_what_was_found() -> None:
    said = picture_verdict(pictures(), "open-weights")
    assert "most of your pictures' prompts (90.0% of their tokens)" in said
    assert "“whole”, ends with the very picture that you see" in said
    assert "“deep”, sees your picture clearly, with small errors (SSIM 0.85, PSNR 35.0" in said
    assert "the mean of other pictures, a guess that needs no wire, has 0.40" in said
    assert "Not what you asked for" in picture_verdict(pictures(), "tls-tapper")
    assert picture_verdict(pictures(), "trunk-only").startswith("Was not tried")


@pytest.mark.parametrize(
    ("ssim", "said"),
    [
        (0.97, "practically as you see it"),
        (0.7, "with its main shapes"),
        (0.55, "vaguely"),
        (0.45, "hardly more than by guessing"),
        (-0.1, "hardly more than by guessing"),
    ],
)
def test_the_words_are_those_of_the_figure(ssim, said) -> None:
    found = pictures(deep=((20.0, 20.0), (ssim, ssim)))
    assert said in picture_verdict(found, "open-weights")


def test_the_setting_that_shows_least_is_named() -> None:
    assert "deep in int8-channel shows least: SSIM 0.85" in format_sentence(pictures())
    assert format_sentence(pictures()).endswith("That is no protection.")
    guessed = format_sentence(pictures(deep=((9.0, 9.0), (0.4, 0.4))))
    assert guessed.endswith("no more than guessing, for the attacks of this page.")
    none = msgspec.structs.replace(pictures(), findings=())
    assert format_sentence(none) == "None was tried in this audit."


def test_the_clearest_is_the_one_with_the_highest_mean() -> None:
    assert clearest(pictures(), "deep").attack == "a linear map"
    assert clearest(pictures(), "deep", "fp16") is None
    blurred = pictures(whole=((20.0, 20.0), (0.6, 0.6)))
    assert clearest(blurred, "whole").likeness.mean_ssim.value == pytest.approx(0.6)


def test_figures_that_are_infinite_are_put_in_words() -> None:
    some = LikenessRecord(
        psnr=(30.0, None),
        ssim=(0.9, 1.0),
        mean_psnr=Estimate(30.0, 30.0, 30.0),
        mean_ssim=Estimate(0.95, 0.9, 1.0),
    )
    assert psnr_in_words(some) == "30.0 (30.0 to 30.0), 1 the same"
    assert ssim_in_words(some) == "0.950 (0.900 to 1.000)"
    same = msgspec.structs.replace(some, psnr=(None, None), mean_psnr=None)
    assert psnr_in_words(same) == "the same"

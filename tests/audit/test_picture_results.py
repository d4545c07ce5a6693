from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest

from audit.picture_results import likeness_record, shrunk
from audit.pictures.scores import Likeness
from tests.audit.some_results import pictures


def test_each_picture_s_figures_are_kept() -> None:
    record = likeness_record(Likeness((30.0, np.inf, 40.0), (0.8, 1.0, 0.9)))
    assert record.psnr == (30.0, None, 40.0)
    assert record.ssim == (0.8, 1.0, 0.9)
    assert (record.same, record.all_same) == (1, False)
    assert record.mean_psnr.value == 35.0
    assert (record.mean_psnr.low, record.mean_psnr.high) == (30.0, 40.0)
    assert record.mean_ssim.value == pytest.approx(0.9)
    assert 0.8 <= record.mean_ssim.low < 0.9 < record.mean_ssim.high <= 1.0


def test_the_prompts_share_is_over_tokens() -> None:
    found = pictures().prompts.recovered
    assert found.value == 0.9
    assert (found.low, found.high) == (0.5, 1.0)


def test_samples_are_png_files() -> None:
    samples = pictures().samples
    assert len(samples.shown) == 2
    assert samples.deep_search == ()
    opened = np.asarray(PIL.Image.open(io.BytesIO(samples.deep_linear[0])))
    assert np.array_equal(opened, np.ones((12, 12, 3)))


def test_large_pictures_become_small_ones() -> None:
    picture = np.zeros((6, 9, 3), np.uint8)
    picture[:2, :2] = [[[8, 0, 0], [16, 0, 0]], [[8, 0, 0], [16, 0, 0]]]
    small = shrunk(picture, 5)
    assert small.shape == (3, 4, 3)
    assert small[0, 0].tolist() == [12, 0, 0]
    assert np.array_equal(shrunk(picture, 9), picture)
    assert shrunk(np.zeros((1, 9, 3), np.uint8), 3).shape == (1, 3, 3)

"""Changed frames against a live server; ``python -m tests.fuzz.live`` sends many more."""

import pytest

from tests.faults.ground import make_ground
from tests.fuzz.live import fuzz_live, of_pictures, of_text
from tests.fuzz.painting import make_picture_ground


@pytest.mark.slow
def test_two_thousand_changed_frames_do_no_harm(tmp_path):
    report = fuzz_live(of_text(make_ground(tmp_path, scripts=4)), frames=2000, seed=5)
    assert report.harm() == []
    assert report.peak - report.warm < 100 << 20


@pytest.mark.slow
def test_a_thousand_changed_frames_of_pictures_do_no_harm(tmp_path):
    report = fuzz_live(of_pictures(make_picture_ground(tmp_path)), frames=1000, seed=5, devices=1)
    assert report.harm() == []
    assert report.peak - report.warm < 100 << 20

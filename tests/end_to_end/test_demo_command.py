"""``lambda-split demo``: what a newcomer sees first."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

DEMO = [sys.executable, "-m", "lambda_split.cli", "demo"]


def _pixels(path) -> np.ndarray:
    """What a PNG file shows: uint8 (height, width, 3)."""
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.slow
def test_a_picture_that_follows_its_prompt(tmp_path) -> None:
    out = tmp_path / "picture.png"
    command = [*DEMO, "--only", "picture", "--out", str(out), "--keep", str(tmp_path / "kept")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert str(out) in done.stdout
    picture = _pixels(out).astype(int)
    assert picture.shape == (64, 64, 3)
    # "a red circle on the left and a blue square on the right, on a white background"
    circle, square = picture[28:36, 12:18], picture[28:36, 46:52]
    red, green, blue = circle.reshape(-1, 3).mean(0)
    assert red > 2 * max(green, blue)
    red, green, blue = square.reshape(-1, 3).mean(0)
    assert blue > 1.5 * max(red, green)
    assert picture[:8].min() > 200
    assert (tmp_path / "kept" / "image" / "manifest.json").is_file()


@pytest.mark.slow
def test_a_page_until_it_is_ended(tmp_path) -> None:
    kept = str(tmp_path / "kept")
    process = subprocess.Popen(
        [*DEMO, "--ui", "0", "--only", "picture", "--keep", kept],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = re.fullmatch(r"listening on (http://\S+)\n", process.stdout.readline())[1]
        assert "Make it" in httpx.get(f"{address}config", timeout=60).text
        (child,) = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[1]
        assert process.returncode == 0
        assert "Traceback" not in told
        assert not child.is_running()
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_it_is_killed_and_leaves_no_server_behind(tmp_path) -> None:
    command = [*DEMO, "--ui", "0", "--only", "picture", "--keep", str(tmp_path / "kept")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline().startswith("listening on http://")
            (child,) = psutil.Process(process.pid).children()
        finally:
            process.kill()
    _await_end(child)


def _await_end(child: psutil.Process) -> None:
    """Until it runs no more; whether somebody reaps it is not ours to say."""
    with contextlib.suppress(psutil.NoSuchProcess):
        while child.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--keep", "."), "exists"),
        (("--keep", "/dev/null/kept"), "cannot write /dev/null/kept"),
        (("--out", "no/such/folder/a.png"), "no such folder"),
        (("--only", "sound"), "invalid choice"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is(arguments, complaint) -> None:
    done = subprocess.run([*DEMO, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode in {1, 2}
    assert complaint in done.stderr
    assert "serving" not in done.stderr

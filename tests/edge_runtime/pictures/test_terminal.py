"""Pictures as coloured text."""

import io
import os
import termios

import numpy as np
import pytest

from edge_runtime.pictures.terminal import as_text, columns_on

RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)


def test_two_rows_of_pixels_are_one_line_of_half_blocks():
    picture = np.array([[RED, BLUE], [BLUE, BLACK]], np.uint8)
    assert as_text(picture) == (
        "\x1b[38;2;255;0;0m\x1b[48;2;0;0;255m\u2580"
        "\x1b[38;2;0;0;255m\x1b[48;2;0;0;0m\u2580\x1b[0m\n"
    )


def test_an_odd_last_row_is_shown_twice():
    picture = np.array([[RED], [BLACK], [BLUE]], np.uint8)
    assert as_text(picture).splitlines()[1] == ("\x1b[38;2;0;0;255m\x1b[48;2;0;0;255m\u2580\x1b[0m")


def test_a_wide_picture_is_shown_by_fewer_pixels():
    lines = as_text(np.zeros((48, 130, 3), np.uint8), columns=64).splitlines()
    assert [line.count("\u2580") for line in lines] == [44] * 8


@pytest.mark.parametrize(("wide", "columns"), [(20, 20), (64, 64), (200, 64), (0, 64)])
def test_a_narrow_terminal_is_not_overrun(wide, columns):
    keyboard, screen = os.openpty()
    try:
        termios.tcsetwinsize(screen, (24, wide))
        with os.fdopen(os.dup(screen), "w") as stream:
            assert columns_on(stream) == columns
    finally:
        os.close(screen)
        os.close(keyboard)


def test_what_is_no_terminal_gets_the_usual(tmp_path):
    assert columns_on(io.StringIO()) == 64
    with (tmp_path / "file").open("w") as stream:
        assert columns_on(stream) == 64

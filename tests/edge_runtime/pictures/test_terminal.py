"""Pictures as coloured text."""

import numpy as np

from edge_runtime.pictures.terminal import as_text

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

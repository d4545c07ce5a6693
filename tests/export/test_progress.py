"""What export shows, on a terminal and elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from export import LineProgress, Progress, TqdmProgress, progress_on_stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _two_stages(progress: Progress) -> None:
    progress.stage("first", 2)
    progress.advance()
    progress.stage("second", 1)
    progress.advance()
    progress.close()


def test_elsewhere_each_stage_is_one_line() -> None:
    stream = io.StringIO()
    _two_stages(LineProgress(stream))
    assert stream.getvalue() == "first …\nsecond …\n"


def test_on_a_terminal_no_finished_bar_is_left() -> None:
    terminal = Terminal()
    _two_stages(TqdmProgress(terminal))
    shown = terminal.getvalue()
    assert "first" in shown
    assert "second" in shown
    assert "\n" not in shown  # one line, written over
    assert shown.rstrip("\r").rpartition("\r")[2].strip() == ""  # and blank at the end


@pytest.mark.parametrize(
    ("stream", "kind"), [(Terminal, TqdmProgress), (io.StringIO, LineProgress)]
)
def test_bars_are_for_terminals(stream, kind, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    assert isinstance(progress_on_stderr(), kind)

"""How far long work is: on terminals, and nowhere else."""

from __future__ import annotations

import io
import sys

import pytest

from edge_runtime.terminal.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _work(stream: io.StringIO, monkeypatch, **settings) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("reading", "tokens", **settings) as bar:
        for done in (10, 30, 40):
            bar(done, 40)
        shown = stream.getvalue()
    # Gone with the last of it, before the next line is written.
    assert stream.getvalue() == shown
    return shown


def test_a_terminal_sees_rate_and_remaining_time_until_it_is_done(monkeypatch) -> None:
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)
    shown = _work(Terminal(), monkeypatch)
    assert "reading" in shown
    assert "tokens" in shown
    assert "\n" not in shown
    assert shown.rstrip("\r").rpartition("\r")[2].strip() == ""


@pytest.mark.parametrize(
    ("stream", "settings"),
    [(io.StringIO, {}), (Terminal, {"show": False}), (Terminal, {"delay_s": 3600})],
)
def test_nothing_is_shown_elsewhere_or_of_short_work(monkeypatch, stream, settings) -> None:
    assert _work(stream(), monkeypatch, **settings) == ""

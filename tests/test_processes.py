"""What the processes of a command do when the command is ended."""

from __future__ import annotations

import contextlib
import signal

import pytest

from lambda_split.commands.processes import ended_by_signals


@contextlib.contextmanager
def _handled(number, handler):
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_as_an_exception_does(number):
    with _handled(number, signal.SIG_DFL):
        with pytest.raises(SystemExit) as ended, ended_by_signals():
            signal.raise_signal(number)
        assert ended.value.code == 128 + number
        assert signal.getsignal(number) is signal.SIG_DFL


def test_a_hangup_that_was_ignored_before_still_is():
    with _handled(signal.SIGHUP, signal.SIG_IGN):  # as nohup does
        with ended_by_signals():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

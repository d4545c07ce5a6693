"""Settings of the whole test run."""

from __future__ import annotations

import signal

import hypothesis

# Tests assert results, never timing: a loaded machine must not fail one.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Shells start what is run in the background with SIGINT ignored, and programs hand that down: those
# that tests interrupt would never hear of it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

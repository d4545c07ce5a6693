"""Settings of the whole test run."""

from __future__ import annotations

import signal

import hypothesis

# Tests assert results, never timing: a loaded machine must not fail one. Nor must chance: examples
# are the same each time, except where new ones are looked for (`make test-all`).
untimed = hypothesis.settings(
    deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("exploring", untimed)
hypothesis.settings.register_profile("repeatable", untimed, derandomize=True)
hypothesis.settings.load_profile("repeatable")

# Shells start what is run in the background with SIGINT ignored, and programs hand that down: those
# that tests interrupt would never hear of it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

"""Settings of the whole test run."""

from __future__ import annotations

import hypothesis

# Tests assert results, never timing: a loaded machine must not fail one.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

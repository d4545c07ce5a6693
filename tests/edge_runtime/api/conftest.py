"""What the tests of the local API share: servers, beside the shipped model and its trunk."""

from __future__ import annotations

import pytest

from tests.edge_runtime.api.servers import await_sessions, running_api
from tests.servers import serving


@pytest.fixture(scope="session")
def narrow_trunk():
    """One with two places, for tests that need to know of all its sessions."""
    limits = ("--max-sessions", "2", "--metrics-port", "0")
    with serving("demo", "--dtype", "float32", *limits) as server:
        yield server


@pytest.fixture
def idle_trunk(narrow_trunk):
    """That one without a session."""
    await_sessions(narrow_trunk, 0)
    yield narrow_trunk
    await_sessions(narrow_trunk, 0)


@pytest.fixture(scope="session")
def api(demo_bundle, trunk):
    """At most two requests at once, so that others wait."""
    arguments = ("--bundle", str(demo_bundle.path), "--url", trunk.url, "--max-sessions", "2")
    with running_api(*arguments, "--codec", "fp32") as server:
        yield server


@pytest.fixture
def client(api):
    with api.client() as made:
        yield made

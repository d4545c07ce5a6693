"""What the tests of the device side share: the shipped language model, and trunks."""

from __future__ import annotations

import pytest

from export import ExportSettings, QuietProgress, export_bundle
from lambda_split.bundle import load_bundle
from tests.edge_runtime.gates import Gate
from tests.servers import serving


@pytest.fixture
def gate():
    """A trunk that a test holds up; afterwards it holds up nobody."""
    made = Gate()
    yield made
    made.open()


@pytest.fixture(scope="session")
def demo_bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "bundle"
    export_bundle("demo", folder, ExportSettings(weights="int4"), progress=QuietProgress())
    return load_bundle(folder)


@pytest.fixture(scope="session")
def trunk():
    with serving("demo", "--dtype", "float32", "--metrics-port", "0") as server:
        yield server

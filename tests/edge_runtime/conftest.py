"""What the tests of local servers share: the shipped language model, and its trunk."""

from __future__ import annotations

import pytest

from export import ExportSettings, QuietProgress, export_bundle
from lambda_split.bundle import load_bundle
from tests.servers import serving


@pytest.fixture(scope="session")
def demo_bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "bundle"
    export_bundle("demo", folder, ExportSettings(weights="int4"), progress=QuietProgress())
    return load_bundle(folder)


@pytest.fixture(scope="session")
def trunk():
    with serving("demo", "--dtype", "float32", "--metrics-port", "0") as server:
        yield server

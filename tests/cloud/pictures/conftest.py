"""An engine for each test of a denoiser."""

import pytest

from tests.cloud.pictures.bench import Bench


@pytest.fixture(scope="session")
def xl():
    return Bench("sdxl")


@pytest.fixture
def bench(xl):
    """The same UNet in a fresh engine."""
    xl.engine = xl.make_engine()
    return xl

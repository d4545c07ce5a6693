from __future__ import annotations

import pytest

from audit.pictures.model import PublicModel
from tests.audit.pictures.some_model import public_model


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory):
    return tmp_path_factory.mktemp("audited")


@pytest.fixture(scope="session")
def sdxl(pipelines) -> PublicModel:
    return public_model("sdxl", pipelines)


@pytest.fixture(scope="session")
def sd1(pipelines) -> PublicModel:
    return public_model("sd1", pipelines)

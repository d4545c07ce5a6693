"""The server does what its OpenAPI description says, whatever it is sent."""

from __future__ import annotations

import httpx
import hypothesis
import jsonschema
import pytest
import schemathesis
from schemathesis import GenerationMode, checks

from edge_runtime.api.requests import (
    CHAT_NEUTRAL,
    COMPLETION_NEUTRAL,
    ChatRequest,
    CompletionRequest,
)
from tests.edge_runtime.api.described import CHECKS, few
from tests.edge_runtime.api.servers import running_api


@pytest.fixture(scope="module")
def small(demo_bundle, trunk):
    """So few positions that whatever is asked for is soon done."""
    arguments = ("--bundle", str(demo_bundle.path), "--url", trunk.url, "--max-positions", "16")
    with running_api(*arguments, "--max-sessions", "2") as server:
        yield server


@pytest.fixture(scope="module")
def described(small):
    return schemathesis.openapi.from_url(f"{small.root}/openapi.json", timeout=60)


FITTING, OTHER = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        ("GET", "/health", FITTING),
        ("GET", "/v1/models", FITTING),
        ("GET", "/v1/models/{model}", FITTING),
        ("POST", "/v1/chat/completions", FITTING),
        ("POST", "/v1/chat/completions", OTHER),
        ("POST", "/v1/completions", FITTING),
        ("POST", "/v1/completions", OTHER),
        # Nothing fits here: this server has no model that makes pictures.
        ("POST", "/v1/images/generations", OTHER),
    ],
)
def test_no_request_breaks_the_server(described, method, path, mode) -> None:
    """Requests of the described shape, and of others."""

    @hypothesis.given(case=described[path][method].as_strategy(generation_mode=mode))
    @few
    def send(case) -> None:
        case.call_and_validate(checks=[*CHECKS, checks.negative_data_rejection], timeout=120)

    send()


def test_the_description_is_one(api) -> None:
    document = httpx.get(f"{api.root}/openapi.json", timeout=60).json()
    assert document["openapi"] == "3.1.0"
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("name", "kind", "neutral"),
    [
        ("ChatRequest", ChatRequest, CHAT_NEUTRAL),
        ("CompletionRequest", CompletionRequest, COMPLETION_NEUTRAL),
    ],
)
def test_it_lists_each_parameter(api, name, kind, neutral) -> None:
    document = httpx.get(f"{api.root}/openapi.json", timeout=60).json()
    described = document["components"]["schemas"][name]
    assert set(kind.__struct_fields__) | set(neutral) <= set(described["properties"])
    assert described["additionalProperties"] is False
    assert described["properties"]["model"]["enum"] == ["demo"]

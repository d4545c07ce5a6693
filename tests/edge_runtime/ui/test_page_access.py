"""Who gets the page, and which of Gradio's routes."""

from __future__ import annotations

import argparse
import base64
import subprocess
import sys

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from edge_runtime.api.guard import HostGuard
from edge_runtime.commands import ui
from edge_runtime.ui.guards import PageGuard, PasswordGuard
from lambda_split.errors import UsageError

ADDRESS = "http://127.0.0.1:7860"


def guarded(password: str | None = None) -> TestClient:
    """What stands before the page, and behind it an application that answers everything."""
    everything = PlainTextResponse("all")
    app = HostGuard(
        PasswordGuard(PageGuard(everything), password), ("my.box",), (), own_origin=True
    )
    return TestClient(app, base_url=ADDRESS)


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/assets/index.js", "/gradio_api/queue/join", "/gradio_api/heartbeat/abc"],
)
def test_what_the_page_is_made_of(path) -> None:
    answer = guarded().get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "connect-src 'self'" in policy
    assert "form-action 'none'" in policy
    assert "http" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/upload",
        "/gradio_api/proxy=https://example.com/",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/run/predict",
        "/gradio_api/call/ask",
        "/gradio_api/mcp/sse",
        "/gradio_api/vibe-edit",
        "/gradio_api/deep_link",
        "/monitoring",
        "/login",
        "/llms.txt",
        "//assets/x",
        "/assets",
    ],
)
def test_the_rest_of_gradio_is_not_served(path) -> None:
    assert guarded().get(f"{ADDRESS}{path}").status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:7860"}, 200),
        ({"host": "My.Box:7860"}, 200),
        ({"host": "evil.example"}, 403),
        ({"origin": ADDRESS}, 200),  # the page itself
        ({"origin": "http://127.0.0.1:3000"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 403),
    ],
)
def test_no_other_page_and_no_other_name(headers, status) -> None:
    assert guarded().post("/gradio_api/queue/join", headers=headers).status_code == status


def basic(text: bytes) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(text).decode('ascii')}"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (basic(b"anybody:secret"), 200),
        (basic(b":secret"), 200),
        (basic(b"anybody:Secret"), 401),
        (basic(b"secret"), 401),
        ({"authorization": "Basic !!!"}, 401),
        ({"authorization": "Bearer secret"}, 401),
    ],
)
def test_a_password(headers, status) -> None:
    answer = guarded("secret").get("/", headers=headers)
    assert answer.status_code == status
    assert ("www-authenticate" in answer.headers) == (status == 401)


def run_ui(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    ui.add_arguments(parser)
    return ui.run(parser.parse_args(["--port", "0", *arguments]))


def test_other_machines_need_a_password(demo_bundle) -> None:
    bundle = ("--bundle", str(demo_bundle.path), "--url", "ws://127.0.0.1:1")
    with pytest.raises(UsageError, match="--password-file"):
        run_ui(*bundle, "--host", "0.0.0.0")  # noqa: S104  # that it is refused is the point


def test_two_bundles_of_a_kind(demo_bundle, tmp_path) -> None:
    bundle = ("--bundle", str(demo_bundle.path), "--url", "ws://127.0.0.1:1")
    with pytest.raises(UsageError, match="two bundles are of the model 'demo'"):
        run_ui(*bundle, *bundle)
    with pytest.raises(UsageError, match="an --url for each --bundle"):
        run_ui(*bundle, "--bundle", str(tmp_path))


def test_the_page_as_it_is_served(served) -> None:
    import httpx

    with httpx.Client(base_url=served.url, timeout=60) as client:
        answer = client.get("/")
        assert answer.status_code == 200
        assert "Λ-Split" in answer.text
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        config = client.get("/config").json()
        assert config["analytics_enabled"] is False
        assert client.get("/gradio_api/info").status_code == 200
        assert client.post("/gradio_api/upload", files={"files": b"x"}).status_code == 404


@pytest.mark.parametrize("name", ["gradio", "starlette"])
def test_the_extra_is_named_where_it_is_missing(name, tmp_path) -> None:
    program = (
        f"import sys; sys.modules[{name!r}] = None\n"
        "from lambda_split.cli import main\n"
        f"sys.exit(main(['ui', '--bundle', {str(tmp_path)!r}, '--url', 'ws://127.0.0.1:1']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "lambda-split[ui]" in done.stderr

"""Who may use the server."""

from __future__ import annotations

import http.client
import subprocess
import sys
import urllib.parse

import openai
import pytest

from tests.edge_runtime.api.servers import running_api

PAGE = "http://localhost:3000"


def ask(url: str, method: str = "GET", path: str = "/v1/models", **headers: str):
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


@pytest.fixture(scope="module")
def guarded(demo_bundle, trunk, tmp_path_factory):
    """With a key, one more name, and one page that may use it."""
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text("secret-key\n", encoding="ascii")
    key.chmod(0o600)
    arguments = ("--bundle", str(demo_bundle.path), "--url", trunk.url)
    access = ("--api-key-file", str(key), "--allowed-host", "My.Box", "--cors-origin", PAGE)
    with running_api(*arguments, *access) as server:
        yield server


@pytest.mark.parametrize(
    "host", ["127.0.0.1:1", "localhost", "LOCALHOST:80", "[::1]:8000", "a.localhost", "127.9.9.9"]
)
def test_names_of_loopback_are_answered(api, host) -> None:
    assert ask(api.url, Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.1.5", "", "[::"],
)
def test_other_names_are_refused_against_dns_rebinding(api, host) -> None:
    for path in ("/v1/models", "/health", "/openapi.json", "/nothing"):
        assert ask(api.url, path=path, Host=host).status == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:3000"])
def test_web_pages_may_not_use_it(api, origin) -> None:
    for method in ("GET", "OPTIONS"):
        answer = ask(api.url, method, Origin=origin)
        assert answer.status == 403
        assert answer.headers["access-control-allow-origin"] is None


def test_a_page_that_may(guarded) -> None:
    asking = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    allowed = ask(guarded.url, "OPTIONS", "/v1/chat/completions", **asking)
    assert allowed.status == 200
    assert allowed.headers["access-control-allow-origin"] == PAGE
    assert "x-stainless-os" in allowed.headers["access-control-allow-headers"]
    answer = ask(guarded.url, Origin=PAGE, Authorization="Bearer secret-key")
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    other = ask(guarded.url, Origin="http://localhost:3001", Authorization="Bearer secret-key")
    assert other.status == 403


def test_a_name_that_was_allowed(guarded) -> None:
    assert ask(guarded.url, Host="my.box:8000", Authorization="Bearer secret-key").status == 200


def test_the_key(guarded) -> None:
    with guarded.client(api_key="secret-key") as client:
        assert [model.id for model in client.models.list()] == ["demo"]
    with guarded.client(api_key="another-key") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
        assert caught.value.code == "invalid_api_key"
    assert ask(guarded.url).status == 401
    for wrong in ("Bearer schlüssel", "Bearer", "Bearer ", "secret-key", "Basic secret-key"):
        assert ask(guarded.url, Authorization=wrong).status == 401
    assert ask(guarded.url, Authorization="bearer secret-key").status == 200
    assert ask(guarded.url, path="/health").status == 200
    assert "secret-key" not in guarded.log()


def test_no_log_has_texts_or_the_key(demo_bundle, trunk, tmp_path) -> None:
    key = tmp_path / "key"
    key.write_text("secret-key\n", encoding="ascii")
    key.chmod(0o600)
    arguments = ("--bundle", str(demo_bundle.path), "--url", trunk.url, "--api-key-file", str(key))
    with running_api(*arguments, "--log-level", "debug") as server:
        with server.client(api_key="secret-key") as client:
            asked = {"model": "demo", "prompt": "My hidden lantern", "max_tokens": 12}
            said = client.completions.create(**asked).choices[0].text
            with pytest.raises(openai.BadRequestError):
                client.completions.create(**asked, stop="", user="somebody")
            with pytest.raises(openai.NotFoundError):
                client.completions.create(**{**asked, "model": "another-model"})
        assert ask(server.url, Authorization="Bearer guessed-key").status == 401
        assert server.stop() == 0
        log = server.log()
        words = ("secret-key", "guessed-key", "lantern", said.strip(), "somebody", "another-model")
        assert log
        assert not [word for word in words if word in log]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--host", "0.0.0.0"), 2, "--api-key-file"),  # noqa: S104  # refused
        (("--url", "ws://127.0.0.1:2"), 2, "an --url for each --bundle"),
        (("--host", "192.0.2.1"), 1, "cannot listen"),
        (("--port", "70000"), 1, "cannot listen"),
        (("--max-positions", "99999"), 2, "--max-positions"),
        (("--split", "3,3"), 2, "no split"),
        (("--api-key-file", "/nowhere"), 2, "--api-key-file"),
        (("--allowed-host", "http://my.box"), 2, "--allowed-host"),
        (("--cors-origin", "*"), 2, "--cors-origin"),
    ],
)
def test_what_cannot_be_served_is_told_at_once(demo_bundle, arguments, code, words) -> None:
    command = [sys.executable, "-m", "lambda_split.cli", "api", "--bundle", str(demo_bundle.path)]
    run = subprocess.run(
        [*command, "--url", "ws://127.0.0.1:1", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (run.returncode, run.stdout) == (code, "")
    assert words in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_two_bundles_of_one_model_are_refused(demo_bundle) -> None:
    twice = ("--bundle", str(demo_bundle.path), "--url", "ws://127.0.0.1:1") * 2
    command = [sys.executable, "-m", "lambda_split.cli", "api", "--port", "0", *twice]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stdout) == (2, "")
    assert "two bundles are of the model 'demo'" in run.stderr

"""What the server refuses, as the exceptions of OpenAI's client."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import socket
import time
import urllib.parse

import openai
import pytest

from tests.edge_runtime.api.servers import ENDLESS, await_sessions, running_api
from tests.servers import TrunkServer, free_port, serving

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 2}
COMPLETION = {"model": "demo", "prompt": "The fox", "max_tokens": 2}


def post(api, path: str, body: bytes, **headers: str) -> tuple[int, dict]:
    """A request as no client would send it."""
    address = urllib.parse.urlsplit(api.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    try:
        sent = {"Content-Type": "application/json", **headers}
        connection.request("POST", f"/v1{path}", body, sent)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("presence_penalty", 0.5),
        ("frequency_penalty", -1),
        ("logit_bias", {"1": 5}),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("response_format", {"type": "json_object"}),
        ("modalities", ["audio"]),
        ("audio", {"voice": "x", "format": "mp3"}),
        ("reasoning_effort", "high"),
        ("web_search_options", {}),
        ("store", True),
    ],
)
def test_what_cannot_be_honoured_is_named(client, name, value) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**CHAT, extra_body={name: value})
    assert caught.value.param == name
    assert caught.value.code == "unsupported_parameter"
    assert caught.value.type == "invalid_request_error"


def test_of_several_the_first_of_the_table_is_named(client) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    wrong = {"response_format": {"type": "json_object"}, "tool_choice": "required", "tools": tools}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**CHAT, extra_body=wrong)
    assert caught.value.param == "tools"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 2.5),
        ("temperature", "hot"),
        ("top_p", -0.1),
        ("n", 17),
        ("n", 0),
        ("max_tokens", 0),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop", ""),
        ("stop", "a" * 1025),
        ("stop", ["a", "a" * 1025]),
        ("seed", 2**63),
        ("logprobs", 6),
        ("stream_options", {"include_usage": True}),
        ("sampler", "mine"),
        ("prompt", [1, "two"]),
        ("prompt", []),
        ("prompt", [["the"]]),
    ],
)
def test_what_is_wrong_is_named(client, name, value) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{**COMPLETION, "extra_body": {name: value}})
    assert caught.value.param.startswith(name)
    assert caught.value.code == "invalid_value"


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_completion_tokens": 3}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "4"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "Hi", "name": "Ann"}]}, "messages[0].name"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "data:,"}}],
                    }
                ]
            },
            "messages[0].content[0].type",
        ),
    ],
)
def test_a_wrong_chat_is_told_where(client, fields, parameter) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**CHAT, extra_body=fields)
    assert caught.value.param == parameter


def test_what_means_nothing_is_taken(client) -> None:
    answer = client.chat.completions.create(
        **CHAT,
        user="me",
        presence_penalty=0,
        frequency_penalty=0.0,
        tools=[],
        tool_choice="none",
        response_format={"type": "text"},
        modalities=["text"],
        logit_bias={},
        metadata={"a": "b"},
        service_tier="auto",
    )
    assert answer.usage.completion_tokens == 2


def test_an_unknown_model(client) -> None:
    for ask in (
        lambda: client.chat.completions.create(**{**CHAT, "model": "gpt-4o"}),
        lambda: client.completions.create(**{**COMPLETION, "model": "gpt-4o"}),
        lambda: client.images.generate(model="demo", prompt="a fox"),
        lambda: client.models.retrieve("gpt-4o"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert caught.value.code == "model_not_found"
        assert caught.value.param == "model"


def test_a_prompt_longer_than_the_model(client) -> None:
    for ask in (
        lambda text: client.completions.create(**{**COMPLETION, "prompt": text}),
        lambda text: client.completions.create(**{**COMPLETION, "prompt": text}, stream=True),
        lambda text: client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": text}]
        ),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            ask("fox " * 250_000)  # a megabyte
        assert caught.value.code == "context_length_exceeded"
        assert caught.value.param in {"prompt", "messages"}


def test_a_prompt_as_long_as_the_model_and_one_token_longer(client) -> None:
    asked = {"model": "demo", "max_tokens": 2}
    answer = client.completions.create(**asked, prompt=[5] * 1024)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1024, 1)
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**asked, prompt=[5] * 1025)
    assert caught.value.code == "context_length_exceeded"


def test_a_prompt_that_the_model_cannot_take(client) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{**COMPLETION, "prompt": [10**6]})
    assert caught.value.param == "prompt"
    assert caught.value.code == "invalid_prompt"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"\xff",
        b'{"model": NaN}',
        b'{"model": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
    ],
)
def test_a_body_that_is_no_object(api, body) -> None:
    for path in ("/chat/completions", "/completions", "/images/generations"):
        status, answer = post(api, path, body)
        assert status == 400
        assert answer["error"]["code"] == "invalid_json"


@pytest.mark.parametrize(
    ("body", "status", "kind", "code"),
    [
        (b'{"model": "demo", "prompt": ', 400, openai.BadRequestError, "invalid_json"),
        (b" " * (8 * 1024 * 1024 + 1), 413, openai.APIStatusError, "request_too_large"),
    ],
)
def test_a_wrong_body_as_openai_s_client_tells_it(client, body, status, kind, code) -> None:
    headers = {"Content-Type": "application/json"}
    with pytest.raises(kind) as caught:
        client.post("/completions", content=body, cast_to=object, options={"headers": headers})
    assert (caught.value.status_code, caught.value.code) == (status, code)


def test_a_body_of_another_type(api) -> None:
    body = json.dumps(COMPLETION).encode()
    status, answer = post(api, "/completions", body, **{"Content-Type": "text/plain"})
    assert (status, answer["error"]["code"]) == (415, "unsupported_media_type")


def test_no_such_route_and_no_such_method(api, client) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="demo", input="a")
    assert caught.value.code == "unknown_url"
    status, _ = post(api, "/models", b"{}")
    assert status == 405


@pytest.mark.slow
def test_who_says_nothing_or_too_little_is_not_waited_for(api) -> None:
    address = urllib.parse.urlsplit(api.url)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
    body = b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    said = {"nothing": b"", "half a head": head, "a second half": whole + head, "half": head + body}
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        connections = {}
        for name, data in said.items():
            one = socket.create_connection((address.hostname, address.port), timeout=60)
            connections[name] = stack.enter_context(one)
            one.sendall(data)
        answers = {name: _read_to_end(one) for name, one in connections.items()}
        assert time.monotonic() - begin > 25
    assert answers["nothing"] == answers["half a head"] == b""
    assert answers["a second half"].startswith(b"HTTP/1.1 200 ")
    assert answers["half"].startswith(b"HTTP/1.1 408 ")
    assert b"request_timeout" in answers["half"]


def _read_to_end(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(4096):
        pieces.append(piece)
    return b"".join(pieces)


def test_more_connections_than_it_looks_after(demo_bundle) -> None:
    url = f"ws://127.0.0.1:{free_port()}"
    with running_api("--bundle", str(demo_bundle.path), "--url", url) as api:
        address = urllib.parse.urlsplit(api.url)
        # The client is there before the crowd, which is sent away after ten seconds.
        with api.client() as client, contextlib.ExitStack() as crowd:
            for _ in range(512):
                crowd.enter_context(socket.create_connection((address.hostname, address.port)))
            with pytest.raises(openai.InternalServerError) as caught:
                client.models.list()
        assert (caught.value.status_code, caught.value.code) == (503, "too_many_connections")
        assert caught.value.type == "server_error"
        assert int(caught.value.response.headers["retry-after"]) > 0
        assert caught.value.response.headers["connection"] == "close"
        with api.client(max_retries=5) as client:
            assert [model.id for model in client.models.list()] == ["demo"]


def test_more_requests_than_may_wait(demo_bundle, trunk) -> None:
    arguments = ("--bundle", str(demo_bundle.path), "--url", trunk.url)
    limits = ("--max-sessions", "1", "--max-waiting", "0")
    with running_api(*arguments, *limits) as api, api.client() as client:
        stream = client.completions.create(**ENDLESS, stream=True)
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as caught:
            client.completions.create(**COMPLETION)
        assert caught.value.code == "rate_limit_exceeded"
        assert int(caught.value.response.headers["retry-after"]) > 0
        stream.close()
        api.await_idle()
        assert client.completions.create(**COMPLETION).choices[0].text
        assert api.stop() == 0
        assert COMPLETION["prompt"] not in api.log()


def test_no_session_is_free_in_time(demo_bundle, trunk) -> None:
    arguments = ("--bundle", str(demo_bundle.path), "--url", trunk.url)
    limits = ("--max-sessions", "1", "--wait", "1")
    with running_api(*arguments, *limits) as api, api.client() as client:
        stream = client.completions.create(**ENDLESS, stream=True)
        next(iter(stream))
        with pytest.raises(openai.RateLimitError, match="none became free"):
            client.completions.create(**COMPLETION)
        stream.close()


def test_a_trunk_that_is_not_there(demo_bundle) -> None:
    url = f"ws://127.0.0.1:{free_port()}"
    with running_api("--bundle", str(demo_bundle.path), "--url", url) as api:
        with api.client() as client:
            for streams in (False, True):
                with pytest.raises(openai.InternalServerError) as caught:
                    client.completions.create(**COMPLETION, stream=streams)
                assert caught.value.status_code == 503
                assert caught.value.code == "trunk_unreachable"
            assert api.state()["sessions"] == 0
        assert "The fox" not in api.log()


@pytest.mark.slow
def test_a_server_that_stops_does_not_wait_for_a_trunk_that_is_away(demo_bundle) -> None:
    with serving("demo", "--dtype", "float32", "--metrics-port", "0") as trunk:
        arguments = ("--bundle", str(demo_bundle.path), "--url", trunk.url)
        with running_api(*arguments) as api, api.client() as client:
            stream = client.completions.create(**ENDLESS, stream=True)
            next(iter(stream))
            with concurrent.futures.ThreadPoolExecutor(1) as threads:
                whole = threads.submit(client.completions.create, **ENDLESS)
                await_sessions(trunk, 2)  # one that is being opened would not wait for the trunk
                trunk.kill()
                assert api.stop() == 0
                with pytest.raises(openai.InternalServerError) as caught:
                    whole.result()
            assert caught.value.code == "server_stopping"
            with pytest.raises(openai.APIConnectionError):
                list(stream)
            assert "Traceback" not in api.log()


@pytest.mark.slow
def test_a_trunk_that_goes_away_during_an_answer_and_comes_back_or_not(demo_bundle) -> None:
    trunk = TrunkServer("demo", "--dtype", "float32")
    try:
        trunk.start()
        arguments = ("--bundle", str(demo_bundle.path), "--url", trunk.url)
        with running_api(*arguments, "--give-up-after", "600") as api, api.client() as client:
            # Several, so that they do not come to an end before the trunk is killed.
            beings = ["fox", "owl", "bat", "hen", "crow", "hare", "mole", "frog"]
            prompts = [f"Once upon a time there lived a {name}" for name in beings]
            long = {**COMPLETION, "prompt": prompts, "max_tokens": 200}
            whole = client.completions.create(**long)
            assert whole.usage.completion_tokens > 200
            stream = client.completions.create(**long, stream=True)
            texts = [""] * len(prompts)
            for number, chunk in enumerate(stream):
                texts[chunk.choices[0].index] += chunk.choices[0].text
                if number == 0:
                    trunk.kill()
                    trunk.start()
            assert texts == [choice.text for choice in whole.choices]
        with running_api(*arguments, "--give-up-after", "1") as api, api.client() as client:
            stream = iter(client.completions.create(**ENDLESS, stream=True))
            next(stream)
            trunk.kill()
            with pytest.raises(openai.APIError, match="connection was lost"):
                list(stream)
            api.await_idle()
    finally:
        trunk.close()

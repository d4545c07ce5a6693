"""What is counted, what it is called, and how it is served."""

import asyncio
import contextlib
import threading
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cloud.listener import bind
from cloud.metrics import Metrics
from cloud.metrics_listener import serve_metrics
from cloud.status import ServerStatus
from cloud.tokens import TokenStore
from lambda_split import __version__
from tests.cloud.serving import Device, hidden_states, run, serving, token_file


def samples(metrics):
    """{(name, labels): value} of all samples."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def value(metrics, name, **labels):
    return samples(metrics)[name, tuple(sorted(labels.items()))]


def test_sessions_come_and_go():
    metrics = Metrics()
    metrics.session_opened()
    metrics.session_opened()
    metrics.session_closed(seconds=20.0)
    assert value(metrics, "lambda_split_sessions_open") == 1
    assert value(metrics, "lambda_split_sessions_total") == 2
    assert value(metrics, "lambda_split_session_seconds_count") == 1
    assert value(metrics, "lambda_split_session_seconds_bucket", le="15.0") == 0
    assert value(metrics, "lambda_split_session_seconds_bucket", le="60.0") == 1


def test_steps_fill_their_histograms():
    metrics = Metrics()
    metrics.step(sessions=3, decode_tokens=2, prompt_tokens=100, seconds=0.004)
    metrics.step(sessions=1, decode_tokens=1, prompt_tokens=0, seconds=40.0)
    assert value(metrics, "lambda_split_tokens_total", kind="decode") == 3
    assert value(metrics, "lambda_split_tokens_total", kind="prompt") == 100
    assert value(metrics, "lambda_split_step_seconds_bucket", le="0.0025") == 0
    assert value(metrics, "lambda_split_step_seconds_bucket", le="0.005") == 1
    assert value(metrics, "lambda_split_step_seconds_bucket", le="30.0") == 1
    assert value(metrics, "lambda_split_step_seconds_bucket", le="+Inf") == 2
    assert value(metrics, "lambda_split_step_sessions_bucket", le="1.0") == 1
    assert value(metrics, "lambda_split_step_sessions_bucket", le="4.0") == 2
    assert value(metrics, "lambda_split_step_tokens_bucket", le="64.0") == 1
    assert value(metrics, "lambda_split_step_tokens_sum") == 103


def test_the_rest_is_counted():
    metrics = Metrics()
    metrics.received(nbytes=100)
    metrics.sent(nbytes=7)
    metrics.replayed(positions=40)
    metrics.evicted(reason="pressure")
    metrics.rejected(code="position-gap")
    metrics.refused(reason="capacity-refused")
    metrics.refused(reason="http-401")
    metrics.kv(used_blocks=3, total_blocks=10, block_positions=16)
    metrics.log_line_lost()
    assert value(metrics, "lambda_split_received_bytes_total") == 100
    assert value(metrics, "lambda_split_sent_bytes_total") == 7
    assert value(metrics, "lambda_split_replays_total") == 1
    assert value(metrics, "lambda_split_replayed_positions_total") == 40
    assert value(metrics, "lambda_split_evicted_sessions_total", reason="pressure") == 1
    assert value(metrics, "lambda_split_rejected_forwards_total", code="position-gap") == 1
    assert value(metrics, "lambda_split_refused_total", reason="capacity-refused") == 1
    assert value(metrics, "lambda_split_refused_total", reason="http-401") == 1
    assert value(metrics, "lambda_split_kv_used_blocks") == 3
    assert value(metrics, "lambda_split_kv_blocks") == 10
    assert value(metrics, "lambda_split_kv_block_positions") == 16
    assert value(metrics, "lambda_split_lost_log_lines_total") == 1


def test_the_build_is_told():
    found = [labels for name, labels in samples(Metrics()) if name == "lambda_split_build_info"]
    assert dict(found[0])["version"] == __version__


def test_no_sender_can_add_a_series():
    metrics = Metrics()
    before = set(samples(metrics))
    for index in range(50):
        metrics.refused(reason=f"made-up-{index}")
        metrics.rejected(code=f'x{index}"}} 1\nfaked')
        metrics.evicted(reason=f"whim-{index}")
    assert set(samples(metrics)) == before
    assert value(metrics, "lambda_split_refused_total", reason="other") == 50
    assert value(metrics, "lambda_split_rejected_forwards_total", code="other") == 50
    assert value(metrics, "lambda_split_evicted_sessions_total", reason="other") == 50


def test_two_servers_in_one_process_count_apart():
    one, other = Metrics(), Metrics()
    one.session_opened()
    assert value(other, "lambda_split_sessions_total") == 0


def test_threads_lose_no_count():
    metrics = Metrics()

    def count():
        for _ in range(2000):
            metrics.received(nbytes=1)
            metrics.step(sessions=1, decode_tokens=1, prompt_tokens=0, seconds=0.1)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(metrics, "lambda_split_received_bytes_total") == 16_000
    assert value(metrics, "lambda_split_step_seconds_count") == 16_000


@contextlib.asynccontextmanager
async def listening(metrics, status=None):
    async with serve_metrics(bind("127.0.0.1", 0), metrics, status or ServerStatus()) as port:
        yield port


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read()


def test_the_listener_serves_metrics_and_health_and_nothing_else():
    metrics = Metrics()
    metrics.received(nbytes=12)

    async def scenario():
        async with listening(metrics) as port:
            paths = ("/metrics", "/metrics?x=1", "/healthz", "/readyz", "/", "/metrics/", "/debug")
            answers = [await asyncio.to_thread(get, port, path) for path in paths]
            with pytest.raises(InvalidStatus) as caught:
                await connect(f"ws://127.0.0.1:{port}/elsewhere")
            with pytest.raises(InvalidStatus) as on_metrics:
                await connect(f"ws://127.0.0.1:{port}/metrics")
            return answers, (caught.value.response, on_metrics.value.response)

    answers, upgrades = run(scenario())
    assert [status for status, _, _ in answers] == [200, 200, 200, 503, 404, 404, 404]
    assert answers[0][1] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"lambda_split_received_bytes_total 12.0" in answers[0][2]
    assert [response.status_code for response in upgrades] == [404, 200]  # no upgrade: 101


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n",
        b"\x16\x03\x01 something else\r\n\r\n",
    ],
    ids=["post", "head", "body", "long-path", "many-headers", "tls"],
)
def test_the_listener_closes_on_anything_but_a_plain_get(request_bytes):
    async def scenario():
        async with listening(Metrics()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request_bytes)
            async with asyncio.timeout(30):
                answer = await reader.read()
            writer.close()
            return answer, await asyncio.to_thread(get, port, "/metrics")

    answer, after = run(scenario())
    assert b"lambda_split" not in answer
    assert after[0] == 200


def test_a_request_that_never_ends_is_cut_off(monkeypatch):
    monkeypatch.setattr("cloud.metrics_listener._TIMEOUT_S", 0.3)

    async def scenario():
        async with listening(Metrics()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost")
            async with asyncio.timeout(30):
                answer = await reader.read()
            writer.close()
            return answer

    assert b"lambda_split" not in run(scenario())


def test_a_server_counts_what_happens_to_it(model, tmp_path):
    metrics = Metrics()
    path = token_file(tmp_path, it="s3cret")

    async def scenario():
        async with serving(model, metrics=metrics, tokens=TokenStore(path)) as url:
            with pytest.raises(InvalidStatus):
                await connect(url)
            with contextlib.suppress(AssertionError):  # an error message instead of a welcome
                hello = model.hello(max_positions=0)
                async with connect(
                    url, additional_headers={"Authorization": "Bearer s3cret"}
                ) as socket:
                    await socket.send(Device(socket, hello).session.hello())
                    await socket.wait_closed()
            async with Device.connected(url, model.hello(), token="s3cret") as device:
                assert value(metrics, "lambda_split_sessions_open") == 1
                await device.forward(0, hidden_states(20))
                await device.forward(20, hidden_states(1))
                await device.forward(50, hidden_states(1))  # a gap

    run(scenario())
    assert value(metrics, "lambda_split_sessions_open") == 0
    assert value(metrics, "lambda_split_sessions_total") == 1
    assert value(metrics, "lambda_split_session_seconds_count") == 1
    assert value(metrics, "lambda_split_refused_total", reason="http-401") == 1
    assert value(metrics, "lambda_split_refused_total", reason="positions-refused") == 1
    assert value(metrics, "lambda_split_rejected_forwards_total", code="position-gap") == 1
    assert value(metrics, "lambda_split_tokens_total", kind="prompt") == 20
    assert value(metrics, "lambda_split_tokens_total", kind="decode") >= 1
    assert value(metrics, "lambda_split_step_seconds_count") >= 2
    payload = 21 * 64 * 4  # positions × width × bytes of fp32, at least
    assert value(metrics, "lambda_split_received_bytes_total") > payload
    assert value(metrics, "lambda_split_sent_bytes_total") > payload

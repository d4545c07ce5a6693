"""``lambda-split serve`` as a process: its line on stdout, its exit codes, its signals."""

import argparse
import asyncio
import contextlib
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import sys

import pytest
import torch

from cloud.command import add_arguments, run
from cloud.listener import bind, is_loopback, url_of
from cloud.metrics import Metrics
from cloud.metrics_listener import serve_metrics
from cloud.server import serve
from cloud.status import ServerStatus
from cloud.text import LanguageModel
from lambda_split.errors import (
    AddressUnavailable,
    CheckpointError,
    ServerDraining,
    SplitImpossible,
    TlsFileInvalid,
    UsageError,
)
from lambda_split.partition import load_trunk
from lambda_split.wire.frames import Codec
from tests.certificates import Issuer
from tests.cloud.serving import LAYERS, LIMITS, Device, Reference, hidden_states, same, token_file
from tests.cloud.serving import run as run_async

ROOT = pathlib.Path(__file__).parents[2]


def command(*arguments):
    return [sys.executable, "-m", "lambda_split.cli", "serve", *map(str, arguments)]


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def process(*arguments):
    with subprocess.Popen(
        command(*arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    ) as server:
        try:
            yield server
        finally:
            server.kill()


async def until_said(server, words):
    """Read a server's log until something is there; its end comes first only by a fault."""
    log = ""
    while words not in log:
        line = await asyncio.to_thread(server.stderr.readline)
        assert line, log
        log += line


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_it_says_where_it_listens_serves_and_ends_cleanly(model, tmp_path, number):
    tokens = token_file(tmp_path, someone="s3cret-token")
    bf16 = load_trunk(model.checkpoint, LAYERS, dtype=torch.bfloat16)

    async def scenario(server, url):
        async with Device.connected(url, model.hello(), token="s3cret-token") as device:
            assert device.welcome.max_in_flight > 1
            found = await device.forward(0, hidden_states(5))
            server.send_signal(number)
            return found, await device.fatal()

    arguments = (model.folder, "--port", 0, "--dtype", "bfloat16", "--token-file", tokens)
    with process(*arguments, "--log-level", "debug", "--threads", 1) as server:
        line = server.stdout.readline()
        match = re.fullmatch(r"listening on (ws://127\.0\.0\.1:\d+)\n", line)
        assert match, server.stderr.read()
        found, (error, code) = run_async(scenario(server, match[1]))
        rest, log = server.communicate(timeout=60)
    assert server.returncode == 0
    assert rest == ""  # one line on stdout, no more
    assert (type(error), code) == (ServerDraining, 1001)
    wanted = Reference(bf16, codec=Codec.FP32, dtype=torch.bfloat16)
    # The reference keeps its keys in bfloat16, the server on a CPU in float32.
    assert same(found, wanted.forward(0, hidden_states(5)), tolerance=0.03)
    assert "Traceback" not in log
    assert "layers 1 to 4 of 6, bfloat16 on cpu" in log
    assert "s3cret" not in log


def test_with_a_certificate_it_listens_with_tls(model, tmp_path):
    issuer = Issuer(tmp_path)
    certificate = issuer.issue("server")
    context = ssl.create_default_context(cafile=issuer.ca_file)

    async def scenario(url):
        async with Device.connected(url, model.hello(), ssl=context) as device:
            return await device.forward(0, hidden_states(2))

    arguments = ("--port", 0, "--tls-cert", certificate.cert, "--tls-key", certificate.key)
    with process(model.folder, *arguments, "--threads", 1) as server:
        line = server.stdout.readline()
        match = re.fullmatch(r"listening on (wss://127\.0\.0\.1:\d+)\n", line)
        assert match, server.stderr.read()
        assert run_async(scenario(match[1])).shape == (2, 64)


def test_it_ends_cleanly_with_its_stdin_where_it_was_told_to(model):
    async def scenario(server, url):
        async with Device.connected(url, model.hello()) as device:
            server.stdin.write("nobody asked\n")  # is ignored
            server.stdin.flush()
            found = await device.forward(0, hidden_states(2))
            server.stdin.close()
            return found, await device.fatal()

    with process(model.folder, "--port", 0, "--end-with-stdin", "--threads", 1) as server:
        url = server.stdout.readline().split()[-1]
        found, (error, code) = run_async(scenario(server, url))
        server.stdin = None
        log = server.communicate(timeout=60)[1]
    assert server.returncode == 0
    assert found.shape == (2, 64)
    assert (type(error), code) == (ServerDraining, 1001)
    assert "stopping on SIGTERM" in log


def test_it_outlives_its_stdin_where_it_was_not(model):
    async def scenario(url):
        async with Device.connected(url, model.hello()) as device:
            return await device.forward(0, hidden_states(2))

    with process(model.folder, "--port", 0, "--threads", 1) as server:
        server.stdin.close()
        url = server.stdout.readline().split()[-1]
        assert run_async(scenario(url)).shape == (2, 64)


def test_it_ends_while_it_loads_too(model):
    with process(model.folder, "--port", 0, "--end-with-stdin", "--threads", 1) as server:
        server.stdin.close()
        server.stdin = None
        server.communicate(timeout=60)
    # Killed by the signal, or it served already and ended cleanly.
    assert server.returncode in {-signal.SIGTERM, 0}


def one_line_of(*arguments):
    """Exit code and stderr of a command that fails at once."""
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_a_port_in_use_is_one_clear_line_before_the_model_is_read(model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, text = one_line_of("no/such/model", "--port", port)
    assert code == 1
    assert text.count("\n") == 1
    assert f"127.0.0.1:{port}" in text
    assert "in use" in text


@pytest.mark.parametrize("kind", ["devices", "metrics"])
def test_a_port_that_another_server_was_quicker_to_listen_on_is_told(model, kind):
    """Both reserve it while they load their models."""

    async def scenario(late):
        if kind == "metrics":
            async with serve_metrics(late, Metrics(), ServerStatus()):
                pytest.fail("it listens")
        served = LanguageModel(model.engine(), model.offer(), LIMITS.max_chunk_tokens)
        async with serve(served, late, limits=LIMITS):
            pytest.fail("it listens")

    with contextlib.closing(bind("127.0.0.1", 0)) as quick:
        port = quick.getsockname()[1]
        with contextlib.closing(bind("127.0.0.1", port)) as late:
            quick.listen()
            with pytest.raises(AddressUnavailable, match=rf"127\.0\.0\.1:{port}: .* in use"):
                run_async(scenario(late))


def test_wrong_arguments_end_with_code_2(model):
    assert one_line_of(model.folder, "--port", "70000")[0] == 2
    assert one_line_of()[0] == 2
    code, text = one_line_of(model.folder, "--host", "0.0.0.0", "--port", 0)  # noqa: S104 - refused
    assert code == 2
    assert "--token-file" in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--host", "no.such.host.invalid"], AddressUnavailable),
        (["--host", "192.0.2.1", "--insecure"], AddressUnavailable),
        (["--token-file", "/no/such/file"], UsageError),
        (["--tls-cert", "/no/such/file"], UsageError),
        (["--tls-cert", "/no/such/file", "--tls-key", "/no/such/file"], TlsFileInvalid),
        (["--device", "tpu"], UsageError),
        (["--device", "meta"], UsageError),
        (["--device", "cuda:99"], UsageError),
        (["--max-positions", 1_000_000], UsageError),
        (["--head-layers", 3, "--tail-layers", 3], SplitImpossible),
        (["--lora", "/no/such/adapter"], CheckpointError),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_a_typed_error(model, arguments, error):
    with pytest.raises(error):
        run(parsed(model.folder, "--port", 0, *arguments))


def test_a_model_that_is_not_there_is_a_typed_error(tmp_path):
    with pytest.raises(CheckpointError):
        run(parsed(tmp_path / "nothing", "--port", 0))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "-1"],
        ["--port", "x"],
        ["--threads", "0"],
        ["--max-sessions", "0"],
        ["--max-positions", "0"],
        ["--head-layers", "-1"],
        ["--dtype", "int8"],
        ["--log-level", "loud"],
    ],
    ids=" ".join,
)
def test_arguments_out_of_range_are_wrong_use(arguments):
    with pytest.raises(SystemExit) as caught:
        parsed("demo", *arguments)
    assert caught.value.code == 2


def test_the_help_teaches_and_needs_no_torch():
    program = (
        "import argparse, sys; sys.modules['torch'] = None; import cloud.command as c; "
        "p = argparse.ArgumentParser(); c.add_arguments(p); print(p.format_help())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment(),
    )
    for option in ("--head-layers", "--token-file", "--tls-cert", "--insecure", "--lora"):
        assert option in done.stdout


def test_addresses_of_both_families_become_urls():
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        assert url_of(listener) == f"ws://127.0.0.1:{listener.getsockname()[1]}"
        assert is_loopback(listener)
    with contextlib.closing(bind("0.0.0.0", 0)) as listener:  # noqa: S104 - bound, never listening
        assert not is_loopback(listener)
    if socket.has_ipv6:
        with contextlib.suppress(AddressUnavailable), contextlib.closing(bind("::1", 0)) as six:
            assert url_of(six) == f"ws://[::1]:{six.getsockname()[1]}"
            assert is_loopback(six)

"""Generators that are dropped without being closed, and those that a forked process inherits."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from edge_runtime import ImageGenerator, PictureSpec, RetryPolicy, TextGenerator
from edge_runtime.connection import Connection, Endpoint
from edge_runtime.stats import Meter
from lambda_split.errors import LambdaSplitError, UsageError
from lambda_split.wire.codecs import encode
from lambda_split.wire.frames import Codec
from lambda_split.wire.messages import Hello
from tests.certificates import Issuer
from tests.edge_runtime.gates import Gate
from tests.edge_runtime.hostile_server import hostile_server
from tests.edge_runtime.pictures import some_pictures
from tests.edge_runtime.pictures.some_denoiser import serve_zeros
from tests.edge_runtime.some_texts import write_text_bundle

RETRY = RetryPolicy(give_up_after_s=60.0, connect_timeout_s=60.0, reply_timeout_s=60.0)
HELLO = Hello(
    protocol=1,
    fingerprint="0123456789abcdef",
    head_layers=1,
    tail_layers=1,
    hidden_size=8,
    codecs=("fp16",),
    max_positions=64,
)
FORKING = """
import os, sys

from edge_runtime import TextGenerator
from tests.edge_runtime.hostile_server import hostile_server
from lambda_split.bundle import load_bundle

def behave(peer):
    peer.welcome()
    peer.serve()

def in_a_child(work):
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

with hostile_server(behave) as server:
    {body}
"""
SYNCHRONOUS = """
    with TextGenerator.open(load_bundle(sys.argv[1]), server.url, codec="fp32") as llm:
        wanted = llm.generate([3, 1, 4], max_new_tokens=9).token_ids

        def use():
            result = llm.generate([3, 1, 4], max_new_tokens=9)
            assert (result.token_ids, result.stats.reconnects) == (wanted, 1)

        assert in_a_child(llm.close) == 0
        assert in_a_child(use) == 0
        result = llm.generate([3, 1, 4], max_new_tokens=9)
        assert (result.token_ids, result.stats.reconnects) == (wanted, 0)
"""
ASYNCHRONOUS = """
    import asyncio

    from edge_runtime import AsyncTextGenerator
    from lambda_split.errors import UsageError

    async def use(llm):
        async with llm:
            await llm.generate([3, 1, 4])

    def complain():
        try:
            asyncio.run(use(llm))
        except UsageError as error:
            assert "forked" in str(error)
        else:
            raise AssertionError("it was used")

    opening = AsyncTextGenerator.open(load_bundle(sys.argv[1]), server.url, codec="fp32")
    with asyncio.Runner() as runner:
        llm = runner.run(opening)
        wanted = runner.run(llm.generate([3, 1, 4], max_new_tokens=9)).token_ids
    assert in_a_child(complain) == 0
    result = asyncio.run(llm.generate([3, 1, 4], max_new_tokens=9))
    assert (result.token_ids, result.stats.reconnects) == (wanted, 0)
    asyncio.run(llm.aclose())
"""


@pytest.fixture
def text_bundle(tmp_path):
    return write_text_bundle(tmp_path)


@pytest.fixture
def picture_bundle(tmp_path):
    return some_pictures.write_bundle(tmp_path)


def _ends(script, left: threading.Event):
    def whole(peer):
        try:
            script(peer)
        finally:
            left.set()

    return whole


def _join_others(before: set[threading.Thread]) -> None:
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive(), thread.name


def _behave(peer) -> None:
    peer.welcome()
    peer.serve()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_text_generator_that_is_dropped_leaves_nothing(tmp_path, text_bundle, secure) -> None:
    left, before = threading.Event(), set(threading.enumerate())
    issuer = Issuer(tmp_path)
    context = issuer.issue("server").tls().context if secure else None
    with hostile_server(_ends(_behave, left), ssl=context) as server:
        ca_file = issuer.ca_file if secure else None
        llm = TextGenerator.open(text_bundle, server.url, ca_file=ca_file, retry=RETRY)
        stream = llm.stream([3, 1, 4], max_new_tokens=9)
        next(stream)
        del llm
        gc.collect()
        next(stream)  # which needs it
        assert not left.is_set()
        del stream
        gc.collect()
        assert left.wait(60)
    _join_others(before)


def test_a_connection_that_is_dropped_while_much_is_queued_leaves_nothing() -> None:
    go_on, before = threading.Event(), set(threading.enumerate())

    def script(peer):
        peer.welcome()
        go_on.wait(60)  # what comes meanwhile fills the link

    with hostile_server(script) as server:
        endpoint = Endpoint(server.url, reply_timeout_s=60.0)
        connection = Connection(endpoint, HELLO, max_chunk_tokens=16, meter=Meter())
        rows = np.zeros((1 << 16, HELLO.hidden_size), np.float32)
        for _ in range(4):  # queued, as long as it is not very much
            connection.send(0, len(rows), encode(rows, Codec.FP16), reply=1)
        del connection
        gc.collect()
        for thread in set(threading.enumerate()) - before:
            if thread.name == "sender":
                thread.join(60)
                assert not thread.is_alive()
        go_on.set()
    _join_others(before)


def test_an_image_generator_that_is_dropped_leaves_nothing(picture_bundle) -> None:
    left, before = threading.Event(), set(threading.enumerate())
    with hostile_server(_ends(serve_zeros, left)) as server:
        painter = ImageGenerator.open(picture_bundle, server.url, format="fp32", retry=RETRY)
        painter.generate("a cat", spec=PictureSpec(steps=3, guidance=1.0))
        assert not left.is_set()
        del painter
        gc.collect()
        assert left.wait(60)
    _join_others(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked there")
@pytest.mark.slow
@pytest.mark.parametrize("body", [SYNCHRONOUS, ASYNCHRONOUS], ids=["synchronous", "asynchronous"])
def test_a_forked_process_takes_nothing_from_the_one_it_came_from(text_bundle, body) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING.format(body=body.strip()), str(text_bundle.path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["", *sys.path])},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_text_generator_that_another_thread_closes_does_not_come_back(text_bundle) -> None:
    gate = Gate()
    gate.close()
    with hostile_server(gate) as server:
        llm = TextGenerator.open(text_bundle, server.url, retry=RETRY)
        _closed_while_it_waits(
            llm, lambda: llm.generate([3, 1, 4], max_new_tokens=1), gate.held, gate.open
        )
        assert server.requests == 1


def test_an_image_generator_that_another_thread_closes_does_not_come_back(picture_bundle) -> None:
    held, go_on = threading.Event(), threading.Event()

    def script(peer):
        serve_zeros(peer, steps=2)
        held.set()
        go_on.wait(60)

    spec = PictureSpec(steps=3, guidance=1.0)
    with hostile_server(script) as server:
        painter = ImageGenerator.open(picture_bundle, server.url, format="fp32", retry=RETRY)
        _closed_while_it_waits(
            painter, lambda: painter.generate("a cat", spec=spec), held, go_on.set
        )
        assert server.requests == 1


def _closed_while_it_waits(generator, use, held: threading.Event, release) -> None:
    raised: list[Exception] = []

    def work() -> None:
        try:
            use()
        except LambdaSplitError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert held.wait(60)
        generator.close()
        thread.join(60)
        assert not thread.is_alive()
        assert [type(error) for error in raised] == [UsageError]
        assert "closed" in str(raised[0])
    finally:
        release()

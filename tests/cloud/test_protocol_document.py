"""What ``docs/protocol.md`` says about the service's limits and close codes."""

import pathlib

import pytest

from cloud.admission import Waiting
from cloud.connection import Limits, close_code
from cloud.text import longest_forward
from lambda_split.errors import (
    CapacityRefused,
    FrameVersion,
    InternalError,
    ServerDraining,
    SessionEvicted,
)
from lambda_split.wire.messages import MAX_MESSAGE_BYTES

DOCUMENT = (pathlib.Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def test_defaults_are_those_of_the_code():
    limits = Limits()
    assert f"`max_chunk_tokens` ({limits.max_chunk_tokens} by default)" in DOCUMENT
    assert f"`max_in_flight` ({limits.max_in_flight} by default)" in DOCUMENT
    assert f"upgrade request, each as a whole | {limits.handshake_s} s |" in DOCUMENT
    assert f"| connections without a welcome | {limits.max_newcomers} in all |" in DOCUMENT
    assert f"within {limits.ping_s:g} s of a ping" in DOCUMENT
    assert f"| time until the hello | {limits.handshake_s} s |" in DOCUMENT
    assert f"may lose its place to another | {Waiting().evict_idle_s:g} s |" in DOCUMENT
    assert f"before the welcome, before it is read | {MAX_MESSAGE_BYTES} bytes" in DOCUMENT
    assert longest_forward(4096, limits.max_chunk_tokens) == 28 + 512 * (4096 * 4 + 1)
    assert longest_forward(1, limits.max_chunk_tokens) == 16384


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ServerDraining(), 1001, "`server-draining`"),
        (FrameVersion(2, 1), 1002, "a protocol error"),
        (CapacityRefused("full", 1), 1008, "a refusal"),
        (InternalError("x"), 1011, "a server error"),
        (SessionEvicted(), 1011, "a server error"),
    ],
)
def test_close_codes_are_those_of_the_code(error, code, words):
    assert close_code(error) == code
    assert f"| {code} | {words}" in DOCUMENT

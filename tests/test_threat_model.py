"""``docs/threat-model.md`` says what the code does, and names tests that exist."""

import pathlib
import re

from cloud.connection import Limits
from cloud.tokens import MAX_FILE_BYTES, MAX_LINES, MAX_TOKENS
from edge_runtime.api.patience import HEAD_TIMEOUT_S
from edge_runtime.api.responding import BODY_TIMEOUT_S, MAX_BODY_BYTES
from edge_runtime.api.serving import MOST_CONNECTIONS
from edge_runtime.sessions.pool import PoolLimits

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")


def test_every_test_that_it_names_exists():
    named = re.findall(r"`(tests/\S+\.py)::(test_\w+)`", DOCUMENT)
    assert len(named) > 12
    missing = [
        (path, name)
        for path, name in named
        if f"def {name}(" not in (ROOT / path).read_text(encoding="utf-8")
    ]
    assert not missing


def test_every_bound_is_the_code_s():
    limits = Limits()
    assert f"| {limits.handshake_s} s for TLS, then for the request" in DOCUMENT
    assert f"| {limits.max_newcomers} without a welcome" in DOCUMENT
    assert f"a ping every {limits.ping_s:g} s, {limits.ping_s:g} s for its answer" in DOCUMENT
    assert f"| {limits.max_in_flight} forwards in flight" in DOCUMENT
    assert f"one full chunk ({limits.max_chunk_tokens} positions)" in DOCUMENT
    assert f"{MAX_FILE_BYTES >> 20} MiB, {MAX_LINES} lines, {MAX_TOKENS} tokens" in DOCUMENT


def test_every_bound_of_the_local_api_is_the_code_s():
    limits = PoolLimits()
    assert f"| {MAX_BODY_BYTES >> 20} MiB | `tests/edge_runtime/api/" in DOCUMENT
    assert f"| {BODY_TIMEOUT_S:g} s for a body, {HEAD_TIMEOUT_S:g} s for what" in DOCUMENT
    assert f"| {MOST_CONNECTIONS}, then 503 |" in DOCUMENT
    assert f"| {limits.sessions} sessions and {limits.waiting} that wait" in DOCUMENT
    assert f"that wait, {limits.wait_s:g} s each, then 429 |" in DOCUMENT

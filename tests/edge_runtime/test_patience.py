"""The longest times that a policy may have, over real sockets."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime import RetryPolicy, TextGenerator
from edge_runtime.outage import Outage
from tests.certificates import Issuer
from tests.edge_runtime.hostile_server import hostile_server
from tests.edge_runtime.some_texts import write_text_bundle

LONGEST = RetryPolicy(
    first_delay_s=1e9,
    factor=1000,
    max_delay_s=1e9,
    give_up_after_s=np.float64(1e9),
    connect_timeout_s=1_000_000,
    reply_timeout_s=1e6,
)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_the_most_patient_policy_can_be_followed(tmp_path, secure) -> None:
    def script(peer):
        peer.welcome()
        if peer.number:
            peer.serve()

    issuer = Issuer(tmp_path)
    context = issuer.issue("server").tls().context if secure else None
    with (
        hostile_server(script, ssl=context) as server,
        TextGenerator.open(
            write_text_bundle(tmp_path),
            server.url,
            ca_file=issuer.ca_file if secure else None,
            retry=LONGEST,
        ) as llm,
    ):
        result = llm.generate([3, 1, 4], max_new_tokens=3)
        assert result.stats.reconnects == 1


def test_the_longest_pause_is_one_that_can_be_slept(monkeypatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("edge_runtime.outage.time.sleep", slept.append)
    outage = Outage(LONGEST)
    outage.await_progress()
    for _ in range(99):
        outage.pause()
    assert max(slept) <= 1e9

"""A generation goes on by itself and comes out the same, whatever happens to the server or link."""

from __future__ import annotations

import threading

import pytest

from edge_runtime import RetryPolicy, TextGenerator
from edge_runtime.sampling import SamplingSettings
from lambda_split.errors import ConnectionLost, FingerprintRefused
from tests.cutting_proxy import cutting_proxy
from tests.servers import TrunkServer, serving

PROMPT = list(range(10, 50))
NEW_TOKENS = 120
SAMPLING = SamplingSettings(temperature=0.8, top_k=40, seed=11)


@pytest.fixture(scope="module")
def undisturbed(bundle, checkpoint) -> tuple[int, ...]:
    with (
        serving(str(checkpoint("llama"))) as server,
        TextGenerator.open(bundle("llama"), server.url, codec="fp32") as generator,
    ):
        return generator.generate(PROMPT, max_new_tokens=NEW_TOKENS, sampling=SAMPLING).token_ids


@pytest.mark.slow
def test_server_killed_and_restarted_ten_times(bundle, checkpoint, undisturbed) -> None:
    server = TrunkServer(str(checkpoint("llama")))
    server.start()
    restarts: list[threading.Thread] = []
    try:
        with TextGenerator.open(bundle("llama"), server.url, codec="fp32") as generator:
            kills = 0
            stream = generator.stream(PROMPT, max_new_tokens=NEW_TOKENS, sampling=SAMPLING)
            for count, _ in enumerate(stream):
                if count % 7 == 5 and kills < 10:
                    # A restart may still be under way: the device was quicker to go on with it.
                    for restart in restarts:
                        restart.join()
                    server.kill()
                    kills += 1
                    # Started while the device is already trying to reconnect.
                    restarts.append(threading.Thread(target=server.start))
                    restarts[-1].start()
    finally:
        for restart in restarts:
            restart.join()
        server.close()
    assert kills == 10
    assert stream.result.token_ids == undisturbed
    assert stream.result.stats.reconnects >= 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_connection_cut_at_random_bytes(seed, bundle, checkpoint, undisturbed) -> None:
    server = TrunkServer(str(checkpoint("llama")))
    server.start()
    port = int(server.url.rsplit(":", 1)[1])
    # From within the handshake to several tokens on; replays are cut, too.
    limits = {"low": 600, "high": 40_000}
    try:
        with (
            cutting_proxy(port, seed=seed, **limits) as proxy,
            TextGenerator.open(bundle("llama"), proxy.url, codec="fp32") as generator,
        ):
            proxy.arm(cuts=25)
            result = generator.generate(PROMPT, max_new_tokens=NEW_TOKENS, sampling=SAMPLING)
            assert proxy.cuts_left < 20
    finally:
        server.close()
    assert result.token_ids == undisturbed


@pytest.mark.slow
def test_giving_up_is_a_typed_error_and_the_generator_can_go_on_later(bundle, checkpoint) -> None:
    server = TrunkServer(str(checkpoint("llama")))
    server.start()
    retry = RetryPolicy(give_up_after_s=1.0)
    try:
        with TextGenerator.open(bundle("llama"), server.url, retry=retry) as generator:
            first = generator.generate(PROMPT, max_new_tokens=4)
            server.kill()
            with pytest.raises(ConnectionLost, match="gave up after 1 s"):
                generator.generate([*PROMPT, 5], max_new_tokens=4)
            server.start()
            assert generator.generate(PROMPT, max_new_tokens=4).token_ids == first.token_ids
    finally:
        server.close()


@pytest.mark.slow
def test_another_model_behind_the_same_address_is_refused(bundle, checkpoint) -> None:
    server = TrunkServer(str(checkpoint("llama")))
    server.start()
    port = int(server.url.rsplit(":", 1)[1])
    other = TrunkServer(str(checkpoint("qwen3")), port=port)
    try:
        with TextGenerator.open(bundle("llama"), server.url) as generator:
            generator.generate(PROMPT, max_new_tokens=4)
            server.kill()
            other.start()
            with pytest.raises(FingerprintRefused):
                generator.generate([*PROMPT, 5], max_new_tokens=4)
    finally:
        server.close()
        other.close()

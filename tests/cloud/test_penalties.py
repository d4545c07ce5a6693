"""A token whose connections are cut off waits, each time longer; others do not."""

import contextlib
import http

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cloud.metrics import Metrics
from cloud.penalties import Penalties
from cloud.tokens import TokenStore
from lambda_split.wire.messages import serialize_message
from tests.cloud.serving import Device, hidden_states, run, serving, token_file
from tests.faults.raw import PING, RawDevice, frame


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_nobody_waits_who_did_nothing(clock):
    assert Penalties(clock).wait_s("someone") == 0


def test_each_time_the_wait_is_twice_as_long_up_to_a_minute(clock):
    penalties = Penalties(clock)
    waits = []
    for _ in range(8):
        penalties.offend("someone")
        waits.append(penalties.wait_s("someone"))
        clock.now += waits[-1]
        assert penalties.wait_s("someone") == 0
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert penalties.wait_s("other") == 0


def test_connections_that_are_cut_off_together_count_once(clock):
    penalties = Penalties(clock)
    for _ in range(5):
        penalties.offend("someone")
    clock.now += 0.25
    assert penalties.wait_s("someone") == 0.75


def test_after_a_minute_without_offence_it_begins_anew(clock):
    penalties = Penalties(clock)
    for _ in range(3):
        penalties.offend("someone")
        clock.now += penalties.wait_s("someone")
    clock.now += 60
    penalties.offend("someone")
    assert penalties.wait_s("someone") == 1


def test_a_token_that_was_cut_off_is_told_to_wait_and_others_go_on(
    model, tmp_path, monkeypatch, clock
):
    monkeypatch.setattr("cloud.gate.Penalties", lambda: Penalties(clock))
    tokens = TokenStore(token_file(tmp_path, hostile="h0stile", honest="h0nest"))
    metrics = Metrics()

    async def scenario():
        async with (
            serving(model, tokens=tokens, metrics=metrics) as url,
            Device.connected(url, model.hello(), token="h0nest") as honest,
            Device.connected(url, model.hello(), token="h0stile") as before,
        ):
            await flood(url)
            with pytest.raises(InvalidStatus) as caught:
                await connect(url, additional_headers={"Authorization": "Bearer h0stile"})
            await before.forward(0, hidden_states(2))  # what is open goes on
            await honest.forward(0, hidden_states(2))
            async with Device.connected(url, model.hello(), token="h0nest") as newcomer:
                await newcomer.forward(0, hidden_states(2))
            clock.now += 1.1
            async with Device.connected(url, model.hello(), token="h0stile") as later:
                await later.forward(0, hidden_states(2))
            return caught.value.response

    async def flood(url):
        raw = await RawDevice.connect(url, serialize_message(model.hello()))
        await raw.shake_hands("h0stile")
        with contextlib.suppress(OSError):
            for _ in range(100):
                await raw.write(frame(PING, b"") * 100)
        with contextlib.suppress(OSError):
            while await raw.reader.read(65536):
                pass
        raw.abort()

    response = run(scenario())
    assert response.status_code == http.HTTPStatus.TOO_MANY_REQUESTS
    assert response.headers["Retry-After"] == "1"
    assert b'lambda_split_refused_total{reason="http-429"} 1.0' in metrics.render()

"""A peer that sends frames that bring nothing is cut off; honest use of them is not."""

import asyncio
import contextlib
import os

import numpy as np
import pytest

from lambda_split.wire import codecs
from lambda_split.wire.messages import serialize_message
from tests.cloud.serving import Device, Reference, hidden_states, run, serving
from tests.faults.raw import BINARY, CONTINUATION, PING, PONG, RawDevice, address_of, frame, upgrade

FLOODS = {
    "pings": frame(PING, bytes(125)),
    "pongs-unasked": frame(PONG, b""),
    "empty-fragments": frame(CONTINUATION, b"", fin=False),
    "small-fragments": frame(CONTINUATION, bytes(20), fin=False),
}


@pytest.mark.parametrize("kind", FLOODS)
@pytest.mark.parametrize("reads", [True, False])
def test_who_sends_them_without_end_is_cut_off_and_nobody_else(model, kind, reads, caplog):
    caplog.set_level("INFO")

    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as other:
            raw = await RawDevice.connect(url, serialize_message(model.hello()))
            await raw.shake_hands()
            await raw.write(frame(BINARY, b"", fin=False))
            gone = asyncio.ensure_future(read_to_end(raw)) if reads else None
            with contextlib.suppress(OSError):  # reset or broken pipe, as it comes
                for _ in range(100):
                    await raw.write(FLOODS[kind] * 100)
            await (gone or read_to_end(raw))
            raw.abort()
            return await other.forward(0, hidden_states(3))

    found = run(scenario())
    np.testing.assert_array_equal(found, Reference(model.trunk).forward(0, hidden_states(3)))
    assert caplog.text.count("cut a connection off") == 1


def test_a_message_in_honest_pieces_and_some_pings_are_served(model):
    hidden = hidden_states(80)

    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as device:
            encoded = codecs.encode(hidden, device.session.codec)
            message = device.session.forward(0, 80, encoded, reply=80)
            pieces = [message[at : at + 512] for at in range(0, len(message), 512)]
            for _ in range(100):
                await (await device.socket.ping())
            await device.socket.send(pieces)
            return await device.receive()

    np.testing.assert_array_equal(run(scenario()), Reference(model.trunk).forward(0, hidden))


def test_what_was_used_up_comes_back_with_time(model, monkeypatch):
    monkeypatch.setattr("cloud.guarded._PER_S", 1e9)

    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as device:
            for _ in range(700):  # more than are allowed at once
                await (await device.socket.ping(os.urandom(8)))
            return await device.forward(0, hidden_states(3))

    np.testing.assert_array_equal(
        run(scenario()), Reference(model.trunk).forward(0, hidden_states(3))
    )


@pytest.mark.parametrize("split_at", [None, -4, -1, 0, 7])
@pytest.mark.parametrize("version", [b"13", b"12"], ids=["good-request", "bad-request"])
def test_who_does_not_wait_for_the_answer_is_cut_off(model, split_at, version, caplog):
    """The library would answer after it has failed on what follows, and trip over that."""
    caplog.set_level("INFO")

    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as other:
            raw = await RawDevice.connect(url, serialize_message(model.hello()))
            request = upgrade(address_of(url)).replace(b"Version: 13", b"Version: " + version)
            data = request + frame(BINARY, b"early") + frame(0x3, b"no such kind")
            at = len(data) if split_at is None else len(request) + split_at
            with contextlib.suppress(OSError):
                await raw.write(data[:at])
                await asyncio.sleep(0 if split_at == 0 else 0.05)
                await raw.write(data[at:])
            await read_to_end(raw)
            raw.abort()
            return await other.forward(0, hidden_states(3))

    found = run(scenario())
    np.testing.assert_array_equal(found, Reference(model.trunk).forward(0, hidden_states(3)))
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    if split_at is None or split_at < 0:  # else the answer may have been quicker
        assert caplog.text.count("cut a connection off") == 1


async def read_to_end(raw):
    with contextlib.suppress(OSError):
        while await raw.reader.read(65536):
            pass

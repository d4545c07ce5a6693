"""Every reason to refuse a session, each before a hidden state is sent."""

import json

import pytest
from websockets.asyncio.client import connect

from lambda_split.errors import (
    CapacityRefused,
    CodecRefused,
    FingerprintRefused,
    PositionsRefused,
    SplitRefused,
    VersionRefused,
    WidthRefused,
)
from tests.cloud.serving import (
    POSITIONS,
    Device,
    Reference,
    hidden_states,
    refusal,
    run,
    same,
    serving,
)


def wrong_witness(model):
    return {model.checkpoint.layer_tensors(range(2, 3))[0]: "0" * 32}


REFUSED = {
    "version": (lambda _: {"protocol": 2}, VersionRefused),
    "fingerprint": (lambda _: {"fingerprint": "0" * 32}, FingerprintRefused),
    "witness": (lambda model: {"witnesses": wrong_witness(model)}, FingerprintRefused),
    "width": (lambda _: {"hidden_size": 128}, WidthRefused),
    "head-too-short": (lambda _: {"head_layers": 0}, SplitRefused),
    "tail-too-short": (lambda _: {"tail_layers": 0}, SplitRefused),
    "nothing-left": (lambda _: {"head_layers": 3, "tail_layers": 3}, SplitRefused),
    "absurd-split": (lambda _: {"tail_layers": 4_000_000_000}, SplitRefused),
    "codec": (lambda _: {"codecs": ("int3", "zip")}, CodecRefused),
    "no-codec": (lambda _: {"codecs": ()}, CodecRefused),
    "positions": (lambda _: {"max_positions": POSITIONS + 1}, PositionsRefused),
    "no-positions": (lambda _: {"max_positions": 0}, PositionsRefused),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_hello_that_does_not_fit_is_refused(model, case):
    changes, expected = REFUSED[case]

    async def scenario():
        async with serving(model) as url:
            return await refusal(url, model.hello(**changes(model)))

    error, code = run(scenario())
    assert type(error) is expected
    assert code == 1008


def test_witnesses_that_agree_or_are_not_loaded_are_fine(model):
    names = model.checkpoint.layer_tensors(range(1, 2))
    witnesses = {**model.checkpoint.witness_digests(names[:3]), "a.tensor.of.the.head": "0" * 32}

    async def scenario():
        async with (
            serving(model) as url,
            Device.connected(url, model.hello(witnesses=witnesses)) as device,
        ):
            return device.welcome

    welcome = run(scenario())
    assert welcome.codec == "fp32"
    assert welcome.max_positions == POSITIONS


def test_the_first_codec_that_both_know_is_chosen(model):
    async def scenario():
        hello = model.hello(codecs=("int3", "bf16", "fp16"))
        async with serving(model) as url, Device.connected(url, hello) as device:
            return device.welcome.codec

    assert run(scenario()) == "bf16"


def test_unknown_fields_of_a_newer_device_are_ignored(model):
    async def scenario():
        async with serving(model) as url, connect(url, compression=None) as socket:
            hello = json.loads(Device(socket, model.hello()).session.hello())
            await socket.send(json.dumps(hello | {"color": "blue"}))
            return json.loads(await socket.recv())["type"]

    assert run(scenario()) == "welcome"


def test_a_full_server_refuses_and_takes_sessions_again_when_one_ends(model):
    async def scenario():
        async with (
            serving(model, engine=model.engine(max_sessions=2)) as url,
            Device.connected(url, model.hello()) as first,
        ):
            async with Device.connected(url, model.hello()):
                error, code = await refusal(url, model.hello())
            async with Device.connected(url, model.hello()) as third:
                await third.forward(0, hidden_states(2, 5))
            return error, code, await first.forward(0, hidden_states(3))

    error, code, hidden = run(scenario())
    assert type(error) is CapacityRefused
    assert error.retry_after_s > 0
    assert code == 1008
    assert same(hidden, Reference(model.trunk).forward(0, hidden_states(3)))

"""What a device gets over a real socket is what the trunk gives when called directly."""

import asyncio

import numpy as np
import pytest
import torch

from cloud.engine import required_attention
from lambda_split.errors import (
    ChunkTooLong,
    CodecOverflow,
    NonFinite,
    PositionBeyondEnd,
    PositionGap,
)
from lambda_split.partition import load_trunk
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.frames import Codec
from tests.cloud.conftest import served_trunk
from tests.cloud.serving import (
    LAYERS,
    POSITIONS,
    WIDTH,
    Device,
    Reference,
    hidden_states,
    marked,
    run,
    serving,
)

# (start, tokens, reply): prefill in chunks, decode, replay without replies, rollbacks
SCRIPT = [
    (0, 9, 9),
    (9, 24, 1),
    (33, 1, 1),
    (34, 1, 1),
    (30, 4, 4),
    (34, 1, 1),
    (10, 5, 0),
    (15, 3, 2),
    (0, 2, 1),
]


async def play(device, script, *, seed=0):
    return [
        await device.forward(start, hidden_states(tokens, seed + index), reply=reply)
        for index, (start, tokens, reply) in enumerate(script)
    ]


def expected(model, script, *, seed=0, **settings):
    reference = Reference(settings.pop("trunk", model.trunk), **settings)
    return [
        reference.forward(start, hidden_states(tokens, seed + index), reply=reply)
        for index, (start, tokens, reply) in enumerate(script)
    ]


def assert_equal(found, wanted, tolerance=1e-5):
    """Equal but for rounding, relative to the largest value."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        scale = np.abs(other).max(initial=1e-30)
        np.testing.assert_allclose(one / scale, other / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("codec", list(Codec), ids=lambda codec: codec.label)
def test_forwards_equal_the_trunk_called_directly(model, codec):
    async def scenario():
        async with (
            serving(model) as url,
            Device.connected(url, model.hello(codecs=(codec.label,))) as device,
        ):
            return await play(device, SCRIPT)

    # A difference in the last bit may be rounded to the next value that the codec has.
    tolerance = {Codec.FP32: 1e-5, Codec.FP16: 1e-3, Codec.BF16: 1e-2}[codec]
    assert_equal(run(scenario()), expected(model, SCRIPT, codec=codec), tolerance)


def test_hidden_states_beyond_fp16_arrive_scaled(model):
    large = hidden_states(3) * np.float32(1e7)

    async def scenario():
        async with (
            serving(model) as url,
            Device.connected(url, model.hello(codecs=("fp16",))) as device,
        ):
            return await device.forward(0, large)

    found = run(scenario())
    assert np.abs(found).max() > 65504
    np.testing.assert_array_equal(found, Reference(model.trunk, codec=Codec.FP16).forward(0, large))


def test_a_session_may_use_a_part_of_the_loaded_layers(model):
    async def scenario():
        async with (
            serving(model) as url,
            Device.connected(url, model.hello(head_layers=2, tail_layers=3)) as device,
        ):
            return await play(device, SCRIPT)

    assert_equal(run(scenario()), expected(model, SCRIPT, layers=range(2, 3)))


def test_a_bf16_trunk_serves_every_codec(model):
    dtype = torch.bfloat16
    trunk = load_trunk(model.checkpoint, LAYERS, dtype=dtype)
    served = load_trunk(model.checkpoint, LAYERS, dtype=dtype, attention=required_attention())

    async def scenario(codec):
        engine = model.engine(trunk=served, dtype=dtype)
        async with (
            serving(model, engine=engine) as url,
            Device.connected(url, model.hello(codecs=(codec.label,))) as device,
        ):
            return await play(device, SCRIPT)

    for codec in Codec:
        wanted = expected(model, SCRIPT, trunk=trunk, codec=codec, dtype=dtype)
        # Attention is rounded less often than the reference's: keys are kept in float32.
        assert_equal(run(scenario(codec)), wanted, tolerance=0.03)


def test_sessions_in_random_interleaving_do_not_see_each_other(model):
    sessions = 3

    async def scenario():
        async with serving(model) as url:
            order = np.random.default_rng(7).permutation(np.repeat(range(sessions), len(SCRIPT)))
            found = [[] for _ in range(sessions)]
            async with (
                Device.connected(url, model.hello()) as a,
                Device.connected(url, model.hello()) as b,
                Device.connected(url, model.hello()) as c,
            ):
                devices = (a, b, c)
                for which in order:
                    start, tokens, reply = SCRIPT[len(found[which])]
                    seed = 100 * which + len(found[which])
                    hidden = hidden_states(tokens, seed)
                    found[which].append(await devices[which].forward(start, hidden, reply=reply))
            return found

    for which, found in enumerate(run(scenario())):
        assert_equal(found, expected(model, SCRIPT, seed=100 * which))


def test_sessions_at_once_equal_solo_runs(model):
    async def one(url, seed):
        async with Device.connected(url, model.hello()) as device:
            return await play(device, SCRIPT, seed=seed)

    async def scenario():
        async with serving(model) as url:
            return await asyncio.gather(*(one(url, 100 * which) for which in range(5)))

    for which, found in enumerate(run(scenario())):
        assert_equal(found, expected(model, SCRIPT, seed=100 * which))


def test_pipelined_forwards_are_answered_in_order(model):
    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as device:
            for index, (start, tokens, reply) in enumerate(SCRIPT):
                await device.send(start, hidden_states(tokens, index), reply=reply)
            # More than max_in_flight were sent: the server read the rest as it answered.
            assert len(SCRIPT) > device.welcome.max_in_flight
            return [await device.receive() for _ in SCRIPT]

    assert_equal(run(scenario()), expected(model, SCRIPT))


def test_the_reply_says_how_long_the_trunk_computed(model):
    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as device:
            await device.send(0, hidden_states(4))
            return device.session.receive_binary(await device.socket.recv()).micros

    assert 0 < run(scenario()) < 10_000_000


def test_a_rejected_forward_leaves_the_session_as_it_was(model):
    nan = Encoded(b"\x00\x00\xc0\x7f" * WIDTH)  # float32 NaN
    script = [(0, 9, 9), (9, 3, 3), (7, 5, 5)]

    async def scenario():
        async with serving(model) as url, Device.connected(url, model.hello()) as device:
            first = await device.forward(0, hidden_states(9, 0))
            gap = await device.forward(10, hidden_states(1))
            beyond = await device.forward(9, hidden_states(20), reply=21)
            await device.socket.send(device.session.forward(4, 1, nan, reply=1))
            non_finite = await device.receive()
            await device.socket.send(device.session.forward(9, 0, Encoded(b""), reply=0))
            empty = await device.receive()
            second = await device.forward(9, hidden_states(3, 1))
            third = await device.forward(7, hidden_states(5, 2))
            return (gap, beyond, non_finite, empty), [first, second, third]

    (gap, beyond, non_finite, empty), found = run(scenario())
    assert isinstance(gap, PositionGap)
    assert (gap.start, gap.length) == (10, 9)
    assert isinstance(beyond, ChunkTooLong)
    assert (beyond.tokens, beyond.limit) == (21, 20)
    assert isinstance(non_finite, NonFinite)
    assert non_finite.where == "incoming"
    assert isinstance(empty, ChunkTooLong)
    assert_equal(found, expected(model, script))


def test_a_chunk_beyond_the_session_s_end_is_rejected(model):
    async def scenario():
        hello = model.hello(max_positions=20)
        async with serving(model) as url, Device.connected(url, hello) as device:
            assert device.welcome.max_positions == 20 < POSITIONS
            await device.forward(0, hidden_states(18, 0))
            error = await device.forward(18, hidden_states(3))
            return error, await device.forward(18, hidden_states(2, 1))

    error, last = run(scenario())
    assert isinstance(error, PositionBeyondEnd)
    assert (error.end, error.max_positions) == (21, 20)
    np.testing.assert_array_equal(last, expected(model, [(0, 18, 18), (18, 2, 2)])[1])


def test_non_finite_output_is_rejected_and_the_cache_is_as_before(model, fragile):
    async def scenario():
        async with (
            serving(model, engine=model.engine(trunk=fragile)) as url,
            Device.connected(url, model.hello()) as device,
        ):
            first = await device.forward(0, hidden_states(9, 0))
            # One appends, one rewrites positions that later forwards attend to, one without reply.
            errors = [
                await device.forward(9, marked(4, 1e25)),
                await device.forward(2, marked(4, 1e25)),
                await device.forward(0, marked(12, 1e25), reply=0),
            ]
            return errors, [first, await device.forward(9, hidden_states(3, 1))]

    errors, found = run(scenario())
    assert [type(error) for error in errors] == [NonFinite] * 3
    assert errors[0].where == "outgoing"
    assert_equal(found, expected(model, [(0, 9, 9), (9, 3, 3)]))


def test_forwards_behind_a_failed_one_are_judged_by_what_it_left(model, fragile):
    async def scenario():
        async with (
            serving(model, engine=model.engine(trunk=fragile)) as url,
            Device.connected(url, model.hello()) as device,
        ):
            await device.send(0, hidden_states(4, 0))
            await device.send(4, marked(6, 1e25))
            await device.send(10, hidden_states(2))  # would follow the one that fails
            await device.send(4, hidden_states(2, 1))
            answers = [await device.receive() for _ in range(4)]
            gap = await device.forward(7, hidden_states(1))
            return answers, gap

    (first, failed, orphan, retry), gap = run(scenario())
    assert isinstance(failed, NonFinite)
    assert isinstance(orphan, PositionGap)
    assert (orphan.start, orphan.length) == (10, 4)
    assert_equal([first, retry], expected(model, [(0, 4, 4), (4, 2, 2)]))
    assert isinstance(gap, PositionGap)
    assert (gap.start, gap.length) == (7, 6)


def test_a_result_that_the_codec_cannot_hold_is_rejected_and_taken_back(model):
    huge = hidden_states(2)
    huge[-1, 5] = np.float32(3.389e38)  # bf16's largest is 3.3895e38

    async def scenario():
        trunk = served_trunk(model.checkpoint)

        def enlarge(module, args, output):
            return torch.where(output.abs() > 1e38, output.sign() * 3.4e38, output)

        trunk.stack.layers[-1].register_forward_hook(enlarge)
        async with (
            serving(model, engine=model.engine(trunk=trunk)) as url,
            Device.connected(url, model.hello(codecs=("bf16",))) as device,
        ):
            first = await device.forward(0, hidden_states(9, 0))
            error = await device.forward(4, huge)
            return error, [first, await device.forward(9, hidden_states(3, 1))]

    error, found = run(scenario())
    assert isinstance(error, CodecOverflow)
    assert_equal(found, expected(model, [(0, 9, 9), (9, 3, 3)], codec=Codec.BF16))

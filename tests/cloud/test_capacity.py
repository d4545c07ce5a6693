"""What a full server does: idle sessions make room, and there is an end to connections."""

import asyncio
import contextlib

import pytest
import torch
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from cloud.admission import Waiting
from cloud.engine import Work
from cloud.loading import TrunkSettings, load_service
from cloud.scheduler import Scheduler
from cloud.text import longest_forward
from lambda_split.errors import CapacityRefused, SessionEvicted, UsageError
from lambda_split.split import Split
from lambda_split.wire.messages import MAX_MESSAGE_BYTES
from tests.cloud.scheduling import Observed
from tests.cloud.serving import (
    BLOCK_POSITIONS,
    LAYERS,
    LIMITS,
    POSITIONS,
    WIDTH,
    Device,
    Reference,
    hidden_states,
    refusal,
    run,
    same,
    serving,
)

POSITION_BYTES = 2 * 2 * 16 * 4  # keys and values of one position in one layer, float32


def test_the_session_idle_longest_makes_room_and_can_be_replayed(model):
    waiting = Waiting(evict_idle_s=0.0)

    async def scenario():
        async with (
            serving(model, engine=model.engine(max_sessions=2), waiting=waiting) as url,
            Device.connected(url, model.hello()) as first,
            Device.connected(url, model.hello()) as second,
        ):
            await second.forward(0, hidden_states(3, 2))
            await first.forward(0, hidden_states(3, 1))
            async with Device.connected(url, model.hello()) as third:
                await third.forward(0, hidden_states(2, 3))
                ended = await second.fatal()
                kept = await first.forward(3, hidden_states(2, 4))
            async with Device.connected(url, model.hello()) as again:
                await again.forward(0, hidden_states(3, 2), reply=0)
                return ended, kept, await again.forward(3, hidden_states(2, 5))

    (error, code), kept, replayed = run(scenario())
    assert (type(error), code) == (SessionEvicted, 1011)
    for seed, found in (((1, 4), kept), ((2, 5), replayed)):
        reference = Reference(model.trunk)
        reference.forward(0, hidden_states(3, seed[0]))
        assert same(found, reference.forward(3, hidden_states(2, seed[1])))


def test_a_session_that_was_active_lately_keeps_its_place(model):
    async def scenario():
        async with (
            serving(model, engine=model.engine(max_sessions=1)) as url,
            Device.connected(url, model.hello()) as device,
        ):
            ended = await refusal(url, model.hello())
            return ended, await device.forward(0, hidden_states(2))

    (error, code), _ = run(scenario())
    assert (type(error), code) == (CapacityRefused, 1008)


def test_a_session_that_waits_for_a_reply_is_not_idle(model, monkeypatch):
    waiting = Waiting(evict_idle_s=0.0)
    engine = Observed(model.engine(max_sessions=1))
    asked = []

    def noted(name):
        method = getattr(Scheduler, name)

        def call(*arguments, **settings):
            asked.append(name)
            return method(*arguments, **settings)

        monkeypatch.setattr(Scheduler, name, call)

    noted("open")
    noted("submit")

    async def scenario():
        async with (
            serving(model, engine=engine, waiting=waiting) as url,
            Device.connected(url, model.hello()) as device,
        ):
            for start in range(0, 8, 2):
                await device.send(start, hidden_states(2))
            refused = asyncio.ensure_future(refusal(url, model.hello()))
            # The first is in a step, and some of the others still wait when the other one comes.
            async with asyncio.timeout(60):
                while sorted(asked) != ["open"] * 2 + ["submit"] * 4:  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.01)
            engine.gate.set()
            return await refused, [await device.receive() for _ in range(4)]

    (error, _), found = run(scenario())
    assert type(error) is CapacityRefused
    assert [hidden.shape for hidden in found] == [(2, WIDTH)] * 4


def test_before_the_welcome_only_short_messages_are_read(model):
    async def scenario():
        async with serving(model) as url, connect(url, compression=None) as socket:
            assert longest_forward(WIDTH, LIMITS.max_chunk_tokens) > MAX_MESSAGE_BYTES
            with contextlib.suppress(ConnectionClosed):  # while it is still being sent
                await socket.send(b"\0" * (MAX_MESSAGE_BYTES + 1))
            await asyncio.wait_for(socket.wait_closed(), LIMITS.handshake_s / 2)
            return socket.close_code

    assert run(scenario()) == 1009


def test_blocks_are_taken_as_a_session_grows_and_come_back(model):
    engine = model.engine(blocks=7)
    first, second = engine.open(LAYERS, POSITIONS), engine.open(LAYERS, POSITIONS)
    assert engine.pool_use.used_blocks == 2  # room for a first position each
    assert engine.reserve(first, 5 * BLOCK_POSITIONS)
    assert not engine.reserve(second, 2 * BLOCK_POSITIONS + 1)
    assert engine.reserve(second, 2 * BLOCK_POSITIONS)
    with pytest.raises(CapacityRefused, match="memory"):
        engine.open(LAYERS, POSITIONS)
    engine.close(first)
    assert engine.pool_use.used_blocks == 2
    with pytest.raises(CapacityRefused, match="memory"):  # it says that it will replay too many
        engine.open(LAYERS, POSITIONS, expected=5 * BLOCK_POSITIONS)
    engine.open(LAYERS, POSITIONS, expected=5 * BLOCK_POSITIONS - 1)
    assert engine.pool_use.used_blocks == 7


@pytest.mark.parametrize(("missing", "fits"), [(0, True), (1, False)])
def test_a_server_must_have_memory_for_one_session_at_least(model, missing, fits):
    settings = TrunkSettings(
        split=Split(1, 1),
        device=torch.device("cpu"),
        dtype=torch.float32,
        max_sessions=1,
        max_positions=POSITIONS,
        kv_memory=POSITIONS * len(LAYERS) * POSITION_BYTES - missing,
    )
    with contextlib.nullcontext() if fits else pytest.raises(UsageError, match="kv-memory"):
        load_service(model.checkpoint, settings)


def test_room_for_a_replay_is_kept_until_all_of_it_has_come(model):
    engine = model.engine(blocks=6)
    session = engine.open(LAYERS, POSITIONS, expected=3 * BLOCK_POSITIONS)
    assert engine.pool_use.used_blocks == 4
    for start in range(0, 3 * BLOCK_POSITIONS, BLOCK_POSITIONS):
        piece = torch.from_numpy(hidden_states(BLOCK_POSITIONS, start))
        list(engine.step([Work(session, start, piece, 0)]))
        assert engine.pool_use.used_blocks >= 3
    list(engine.step([Work(session, 0, torch.from_numpy(hidden_states(1)), 1)]))
    list(engine.step([Work(session, 1, torch.from_numpy(hidden_states(1)), 1)]))
    assert engine.pool_use.used_blocks == 1  # cut back for good: nothing is expected any more

"""Order and fairness of the scheduler, with a real engine in its thread."""

import asyncio
import threading

import pytest
import torch

from cloud.admission import Waiting
from cloud.forwards import Forward
from cloud.pacing import Pacing
from lambda_split.errors import CapacityRefused, NonFinite, PositionGap, SessionEvicted
from lambda_split.wire.frames import Codec, Frame, FrameKind
from tests.cloud.scheduling import as_array, forward, room, scheduled
from tests.cloud.serving import POSITIONS, WIDTH, Reference, hidden_states, marked, same


def test_a_step_takes_the_oldest_forward_of_each_session(model):
    async def scenario(scheduler, engine):
        a, b, c = [await scheduler.open(room(engine)) for _ in range(3)]
        first = scheduler.submit(a, forward(0, hidden_states(2)))
        await asyncio.to_thread(engine.entered.wait)
        waiting = [
            scheduler.submit(b, forward(0, hidden_states(1))),
            scheduler.submit(b, forward(1, hidden_states(1))),
            scheduler.submit(a, forward(2, hidden_states(1))),
            scheduler.submit(b, forward(2, hidden_states(1))),
            scheduler.submit(c, forward(0, hidden_states(1))),
            scheduler.submit(a, forward(3, hidden_states(1))),
        ]
        engine.gate.set()
        await asyncio.gather(first, *waiting)
        return engine.steps, (a, b, c)

    steps, (a, b, c) = scheduled(model, scenario, hold=True)
    assert steps == [
        [(a, 0)],
        [(b, 0), (c, 0), (a, 2)],
        [(b, 1), (a, 3)],
        [(b, 2)],
    ]


def test_the_engine_is_touched_by_one_thread_only(model):
    async def scenario(scheduler, engine):
        session = await scheduler.open(room(engine))
        await scheduler.submit(session, forward(0, hidden_states(2)))
        scheduler.close(session)
        await scheduler.open(room(engine))
        return engine.threads

    (thread,) = scheduled(model, scenario)
    assert thread is not threading.main_thread()


def test_exceptions_reach_their_own_waiter_only(model):
    async def scenario(scheduler, engine):
        good, gap, nan = [await scheduler.open(room(engine)) for _ in range(3)]
        blocker = scheduler.submit(good, forward(0, hidden_states(3, 1)))
        await asyncio.to_thread(engine.entered.wait)
        frame = Frame(FrameKind.FORWARD, Codec.FP32, 0, 1, 0, b"\xff" * 4 * WIDTH)
        poisoned = Forward(frame, WIDTH, torch.float32)
        answers = asyncio.gather(
            blocker,
            scheduler.submit(gap, forward(5, hidden_states(1))),
            scheduler.submit(nan, poisoned),
            scheduler.submit(good, forward(3, hidden_states(2, 2))),
            return_exceptions=True,
        )
        engine.gate.set()
        return await answers

    first, gap, nan, second = scheduled(model, scenario, hold=True)
    assert isinstance(gap, PositionGap)
    assert isinstance(nan, NonFinite)
    reference = Reference(model.trunk)
    assert same(as_array(first, 3), reference.forward(0, hidden_states(3, 1)))
    assert same(as_array(second, 2), reference.forward(3, hidden_states(2, 2)))


def test_opening_beyond_capacity_is_refused_in_the_caller(model):
    async def scenario(scheduler, engine):
        session = await scheduler.open(room(engine))
        with pytest.raises(CapacityRefused):
            await scheduler.open(room(engine))
        scheduler.close(session)
        return await scheduler.open(room(engine))

    assert scheduled(model, scenario, max_sessions=1).max_positions == POSITIONS


def test_closing_a_session_drops_what_it_has_waiting(model):
    async def scenario(scheduler, engine):
        session = await scheduler.open(room(engine))
        running = scheduler.submit(session, forward(0, hidden_states(2)))
        await asyncio.to_thread(engine.entered.wait)
        waiting = scheduler.submit(session, forward(2, hidden_states(1)))
        scheduler.close(session)
        engine.gate.set()
        await running
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await scheduler.open(room(engine))  # after the close, which waits for the step
        return engine.steps, engine.engine.open_sessions

    steps, still_open = scheduled(model, scenario, hold=True)
    assert len(steps) == 1
    assert still_open == 1


def test_an_open_that_nobody_waits_for_any_more_is_closed_again(model):
    async def scenario(scheduler, engine):
        session = await scheduler.open(room(engine))
        running = scheduler.submit(session, forward(0, hidden_states(2)))
        await asyncio.to_thread(engine.entered.wait)
        opening = asyncio.ensure_future(scheduler.open(room(engine)))
        await asyncio.sleep(0.01)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        engine.gate.set()
        await running
        async with asyncio.timeout(30):
            while engine.engine.open_sessions != 1:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)

    scheduled(model, scenario, hold=True)


def test_sessions_open_and_close_between_the_steps_of_a_prompt(model):
    async def scenario(scheduler, engine):
        a, b = [await scheduler.open(room(engine)) for _ in range(2)]
        prompt = scheduler.submit(a, forward(0, hidden_states(60)))
        await asyncio.to_thread(engine.entered.wait)
        engine.events.clear()
        scheduler.close(b)
        opening = asyncio.ensure_future(scheduler.open(room(engine)))
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(prompt, opening)
        return engine.steps, engine.events

    pacing = Pacing(step_tokens=20)
    steps, events = scheduled(model, scenario, hold=True, max_sessions=2, pacing=pacing)
    assert [start for ((_, start),) in steps] == [0, 20, 40]
    assert events == ["outcome", "close", "open", "outcome", "outcome"]


def test_a_prompt_in_pieces_gives_what_it_gives_whole(model):
    async def scenario(scheduler, engine):
        session = await scheduler.open(room(engine))
        answers = [
            scheduler.submit(session, forward(0, hidden_states(50, 1), reply=45)),
            scheduler.submit(session, forward(30, hidden_states(40, 2), reply=1)),
            scheduler.submit(session, forward(70, hidden_states(3, 3), reply=3)),
        ]
        return await asyncio.gather(*answers)

    pacing = Pacing(step_tokens=7, short_tokens=4)
    found = scheduled(model, scenario, pacing=pacing)
    reference = Reference(model.trunk)
    for reply, (start, tokens, wanted) in zip(
        found, [(0, 50, 45), (30, 40, 1), (70, 3, 3)], strict=True
    ):
        seed = {0: 1, 30: 2, 70: 3}[start]
        expected = reference.forward(start, hidden_states(tokens, seed), reply=wanted)
        assert same(as_array(reply, wanted), expected)


def test_a_prompt_that_fails_in_its_last_piece_is_taken_back_whole(model, fragile):
    async def scenario(scheduler, engine):
        session = await scheduler.open(room(engine))
        first = scheduler.submit(session, forward(0, hidden_states(20, 1)))
        await first
        failing = scheduler.submit(session, forward(5, marked(40, 1e25)))
        with pytest.raises(NonFinite):
            await failing
        return await scheduler.submit(session, forward(20, hidden_states(2, 3)))

    found = scheduled(model, scenario, trunk=fragile, pacing=Pacing(step_tokens=8, short_tokens=4))
    reference = Reference(model.trunk)
    reference.forward(0, hidden_states(20, 1))
    assert same(as_array(found, 2), reference.forward(20, hidden_states(2, 3)))


def test_a_prompt_waits_for_no_other_and_decoding_for_none(model):
    async def scenario(scheduler, engine):
        greedy, other, decoder = [await scheduler.open(room(engine)) for _ in range(3)]
        blocker = scheduler.submit(decoder, forward(0, hidden_states(1)))
        await asyncio.to_thread(engine.entered.wait)
        waiting = [
            scheduler.submit(greedy, forward(0, hidden_states(30))),
            scheduler.submit(greedy, forward(30, hidden_states(30))),
            scheduler.submit(other, forward(0, hidden_states(30))),
            scheduler.submit(decoder, forward(1, hidden_states(1))),
        ]
        engine.gate.set()
        await asyncio.gather(blocker, *waiting)
        names = {greedy: "greedy", other: "other", decoder: "decoder"}
        return [[names[session] for session, _ in step] for step in engine.steps]

    # Pieces are as long as they may be, whatever steps take on this machine.
    pacing = Pacing(step_tokens=15, short_tokens=1, slowdown=1e9, lone_step_s=1e9)
    steps = scheduled(model, scenario, hold=True, pacing=pacing)
    assert steps[1][0] == "decoder"
    prompts = [name for step in steps[1:] for name in step if name != "decoder"]
    first_of_greedy_second = prompts.index("other")
    assert first_of_greedy_second == 1  # in turn, although greedy came first and has more
    assert prompts.count("greedy") >= 2 * prompts.count("other") - 1


def test_under_pressure_the_last_one_admitted_gives_way_and_the_first_goes_on(model):
    async def scenario(scheduler, engine):
        evicted = []
        first = await scheduler.open(room(engine))
        second = await scheduler.open(room(engine), on_evicted=lambda: evicted.append("2"))
        third = await scheduler.open(room(engine), on_evicted=lambda: evicted.append("3"))
        for session in (first, second, third):
            await scheduler.submit(session, forward(0, hidden_states(16)))
        await scheduler.submit(first, forward(16, hidden_states(16)))  # a fourth block: all taken
        with pytest.raises(SessionEvicted):  # the youngest itself wants more
            await scheduler.submit(third, forward(16, hidden_states(1)))
        assert evicted == ["3"]
        await scheduler.submit(first, forward(32, hidden_states(32)))
        assert evicted == ["3", "2"]
        with pytest.raises(SessionEvicted):
            await scheduler.submit(second, forward(16, hidden_states(1)))
        return engine.engine.pool_use

    use = scheduled(model, scenario, blocks=4)
    assert (use.used_blocks, use.total_blocks) == (4, 4)


def test_under_pressure_idle_sessions_go_first(model):
    async def scenario(scheduler, engine):
        evicted = []
        await scheduler.open(room(engine), on_evicted=lambda: evicted.append("idle"))
        young = await scheduler.open(room(engine), on_evicted=lambda: evicted.append("young"))
        await scheduler.submit(young, forward(0, hidden_states(20)))
        await scheduler.submit(young, forward(20, hidden_states(40)))
        return evicted

    waiting = Waiting(evict_idle_s=0.0)
    assert scheduled(model, scenario, blocks=4, waiting=waiting) == ["idle"]


def test_while_too_much_waits_nobody_is_let_in(model):
    async def scenario(scheduler, engine):
        session = await scheduler.open(room(engine))
        running = scheduler.submit(session, forward(0, hidden_states(2)))
        await asyncio.to_thread(engine.entered.wait)
        waiting = scheduler.submit(session, forward(2, hidden_states(60)))
        opening = asyncio.ensure_future(scheduler.open(room(engine)))
        await asyncio.sleep(0.01)
        engine.gate.set()
        with pytest.raises(CapacityRefused, match="60 positions are waiting"):
            await opening
        await asyncio.gather(running, waiting)
        await scheduler.open(room(engine))

    scheduled(model, scenario, hold=True, waiting=Waiting(max_positions=50))


def test_a_place_that_has_just_been_given_up_costs_nobody_else_his(model):
    """The engine's thread frees it between steps: it may compose one before it gets to that."""
    counting, go_on = threading.Event(), threading.Event()
    evicted = []

    async def scenario(scheduler, engine):
        first = await scheduler.open(room(engine))
        await scheduler.submit(first, forward(0, hidden_states(48)))
        count_memory = scheduler._count_memory

        def held():
            counting.set()
            assert go_on.wait(30)
            count_memory()

        scheduler._count_memory = held
        second = await scheduler.open(room(engine), on_evicted=lambda: evicted.append(second))
        await asyncio.to_thread(counting.wait)
        scheduler.close(first)
        growing = scheduler.submit(second, forward(0, hidden_states(32)))
        go_on.set()
        return await growing

    assert as_array(scheduled(model, scenario, blocks=4), 32).shape == (32, WIDTH)
    assert evicted == []

"""The batching engine, without a server."""

import pytest
import torch

from cloud.engine import Result, Work
from lambda_split.errors import (
    CapacityRefused,
    NonFinite,
    PositionBeyondEnd,
    PositionGap,
    ServerDraining,
    SessionEvicted,
    SplitImpossible,
    UsageError,
)
from tests.cloud.serving import LAYERS, POSITIONS, Reference, hidden_states, marked, same


def tensor(tokens, seed=0):
    return torch.from_numpy(hidden_states(tokens, seed))


def one(engine, session, start, hidden, reply=None):
    work = Work(session, start, hidden, len(hidden) if reply is None else reply)
    (outcome,) = engine.step([work])
    return outcome


def test_a_step_gives_each_session_its_own_result(model):
    engine = model.engine()
    sessions = [engine.open(LAYERS, POSITIONS) for _ in range(3)]
    for start, tokens in ((0, 7), (7, 1), (3, 2)):
        batch = [
            Work(session, start, tensor(tokens, 10 * index + start), 1)
            for index, session in enumerate(sessions)
        ]
        outcomes = list(engine.step(batch))
        assert [outcome.hidden.shape for outcome in outcomes] == [(1, 64)] * 3
    for index, outcome in enumerate(outcomes):
        reference = Reference(model.trunk)
        for start, tokens in ((0, 7), (7, 1), (3, 2)):
            wanted = reference.forward(start, hidden_states(tokens, 10 * index + start), reply=1)
        assert same(outcome.hidden, wanted)


def test_a_fault_in_one_work_does_not_touch_the_others(model, fragile):
    engine = model.engine(trunk=fragile)
    first, broken, crashed, last = (engine.open(LAYERS, POSITIONS) for _ in range(4))
    batch = [
        Work(first, 0, tensor(3, 1), 3),
        Work(broken, 0, torch.from_numpy(marked(3, 1e25)), 3),
        Work(crashed, 0, torch.from_numpy(marked(3, 1e35)), 3),
        Work(last, 0, tensor(3, 2), 3),
    ]
    outcomes = list(engine.step(batch))
    assert isinstance(outcomes[1], NonFinite)
    assert isinstance(outcomes[2], RuntimeError)
    for seed, outcome in ((1, outcomes[0]), (2, outcomes[3])):
        assert isinstance(outcome, Result)
        wanted = Reference(model.trunk).forward(0, hidden_states(3, seed))
        assert same(outcome.hidden, wanted)


def test_a_gap_is_rejected_by_what_the_cache_holds(model):
    engine = model.engine()
    session = engine.open(LAYERS, POSITIONS)
    one(engine, session, 0, tensor(5))
    error = one(engine, session, 6, tensor(1))
    assert isinstance(error, PositionGap)
    assert (error.start, error.length) == (6, 5)


@pytest.mark.parametrize("start", [0, 4, 8, 9])
@pytest.mark.parametrize("mark", [1e25, 1e35], ids=["non-finite", "raises"])
def test_a_failed_work_leaves_the_cache_as_it_was(model, fragile, start, mark):
    engine = model.engine(trunk=fragile)
    session = engine.open(LAYERS, POSITIONS)
    one(engine, session, 0, tensor(9))
    assert isinstance(one(engine, session, start, torch.from_numpy(marked(6, mark))), Exception)
    found = one(engine, session, 9, tensor(2, 1))
    reference = Reference(model.trunk)
    reference.forward(0, hidden_states(9))
    assert same(found.hidden, reference.forward(9, hidden_states(2, 1)))


def test_a_work_that_was_done_can_be_taken_back(model):
    engine = model.engine()
    session = engine.open(LAYERS, POSITIONS)
    one(engine, session, 0, tensor(9))
    one(engine, session, 3, tensor(2, 5))
    engine.revert(session)
    found = one(engine, session, 9, tensor(2, 1))
    reference = Reference(model.trunk)
    reference.forward(0, hidden_states(9))
    assert same(found.hidden, reference.forward(9, hidden_states(2, 1)))


def test_a_full_engine_refuses_until_a_session_is_closed(model):
    engine = model.engine(max_sessions=1)
    session = engine.open(LAYERS, POSITIONS)
    with pytest.raises(CapacityRefused):
        engine.open(LAYERS, POSITIONS)
    engine.close(session)
    engine.close(session)  # closing twice is harmless
    assert engine.open(LAYERS, POSITIONS) is not session


@pytest.mark.parametrize("layers", [range(5), range(1, 6), range(3, 3)], ids=str)
def test_layers_that_are_not_loaded_are_refused(model, layers):
    with pytest.raises(SplitImpossible):
        model.engine().open(layers, POSITIONS)


def test_an_interrupted_engine_fails_its_works_and_leaves_caches_as_they_were(model):
    engine = model.engine()
    session = engine.open(LAYERS, POSITIONS)
    one(engine, session, 0, tensor(9))
    engine.interrupt()
    assert isinstance(one(engine, session, 4, tensor(2)), ServerDraining)
    assert isinstance(one(engine, session, 10, tensor(2)), PositionGap)


def test_a_trunk_with_another_attention_is_refused(model):
    with pytest.raises(UsageError, match="required_attention"):
        model.engine(trunk=model.trunk)


def test_a_forward_beyond_the_end_changes_nothing(model):
    engine = model.engine()
    session = engine.open(LAYERS, 20)
    one(engine, session, 0, tensor(9))
    error = one(engine, session, 9, tensor(12))
    assert isinstance(error, PositionBeyondEnd)
    assert (error.end, error.max_positions) == (21, 20)
    assert isinstance(one(engine, session, 9, tensor(11)), Result)


def test_blocks_that_a_cut_left_over_come_back_with_the_next_forward(model):
    engine = model.engine(blocks=6)
    session = engine.open(LAYERS, POSITIONS)
    assert engine.reserve(session, 80)
    one(engine, session, 0, tensor(80))
    one(engine, session, 10, tensor(1))  # could still be taken back
    assert engine.pool_use.used_blocks == 5
    one(engine, session, 11, tensor(1))
    assert engine.pool_use.used_blocks == 1


def test_a_closed_session_s_work_says_that_it_lost_its_place(model):
    engine = model.engine()
    session, other = engine.open(LAYERS, POSITIONS), engine.open(LAYERS, POSITIONS)
    engine.close(session)
    outcomes = list(engine.step([Work(session, 0, tensor(1), 1), Work(other, 0, tensor(1), 1)]))
    assert isinstance(outcomes[0], SessionEvicted)
    assert isinstance(outcomes[1], Result)


def test_no_memory_to_keep_what_one_work_overwrites_does_not_touch_the_others(model, monkeypatch):
    engine = model.engine()
    first, second = (engine.open(LAYERS, POSITIONS) for _ in range(2))
    for seed, session in enumerate((first, second)):
        one(engine, session, 0, tensor(5, seed))
    read = engine._pool.read

    def fails_for_second(layer, slots):
        if int(slots[0]) >= POSITIONS:  # the second session's lane
            raise MemoryError
        return read(layer, slots)

    monkeypatch.setattr(engine._pool, "read", fails_for_second)
    batch = [Work(first, 5, tensor(1, 7), 1), Work(second, 3, tensor(1, 8), 1)]
    done, failed = engine.step(batch)
    assert isinstance(failed, MemoryError)
    for session, outcome, seed in ((first, done, 0), (second, None, 1)):
        reference = Reference(model.trunk)
        reference.forward(0, hidden_states(5, seed))
        if outcome is None:
            outcome = one(engine, session, 5, tensor(1, 7))  # noqa: PLW2901 - it goes on
        assert same(outcome.hidden, reference.forward(5, hidden_states(1, 7)))

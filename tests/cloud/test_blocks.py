"""Who holds which block: every block has one holder, and sessions grow side by side."""

import random

import torch

from cloud.engine import KVGeometry, KVPool
from cloud.engine.blocks import BlockPool


def test_a_session_grows_into_neighbouring_blocks():
    pool = BlockPool(12, lane=4)
    first, second = [], []
    for wanted in (1, 2, 3, 4):
        assert pool.extend(first, wanted)
        assert pool.extend(second, wanted)
    assert first == [0, 1, 2, 3]
    assert second == [4, 5, 6, 7]


def test_low_lanes_are_used_again_before_high_ones():
    pool = BlockPool(12, lane=4)
    first, second = [], []
    pool.extend(first, 4)
    pool.extend(second, 4)
    pool.release(first)
    again = []
    pool.extend(again, 2)
    assert again == [0, 1]


def test_beyond_its_lane_a_session_goes_on_wherever_there_is_room():
    pool = BlockPool(8, lane=2)
    held = [[], [], []]
    for each in held:
        assert pool.extend(each, 2)
    assert pool.extend(held[0], 4)
    assert held[0] == [0, 1, 6, 7]
    assert not pool.extend(held[1], 3)
    assert held[1] == [2, 3]  # nothing was taken by the attempt
    pool.release(held[2])
    assert pool.extend(held[1], 4)
    assert held[1] == [2, 3, 4, 5]


def test_no_block_ever_has_two_holders_and_none_is_lost():
    chance = random.Random(5)
    pool = BlockPool(40, lane=3)
    sessions = [[] for _ in range(9)]
    for _ in range(3000):
        session = chance.choice(sessions)
        if chance.random() < 0.2:
            pool.release(session)
            session.clear()
        else:
            before, free = list(session), pool.free
            wanted = len(session) + chance.randint(0, 5)
            done = pool.extend(session, wanted)
            assert done == (wanted - len(before) <= free)
            assert session == before if not done else session[: len(before)] == before
        held = [block for each in sessions for block in each]
        assert len(set(held)) == len(held) == 40 - pool.free


def small_pool() -> KVPool:
    geometry = KVGeometry(
        layers=range(2, 4),
        kv_heads=2,
        head_dim=4,
        dtype=torch.float32,
        devices=[torch.device("cpu")],
    )
    return KVPool(geometry, block_positions=4, blocks=6, lane=1)


def test_slots_and_runs_say_the_same():
    pool = small_pool()
    held = [1, 2, 5, 0]
    assert pool.geometry.position_bytes == 2 * 2 * 2 * 4 * 4
    assert pool.positions == 24
    assert list(pool.slots(held, 0, 14)) == [*range(4, 12), *range(20, 24), 0, 1]
    for start in range(14):
        for end in range(start + 1, 15):
            runs = [slot for run in pool.runs(held, start, end) for slot in run]
            assert runs == pool.slots(held, start, end).tolist()
    assert pool.runs(held, 1, 14) == (range(5, 12), range(20, 24), range(2))

"""Every family's layers in ragged batches, against the same layers called alone."""

import random

import numpy as np
import pytest
import torch

from cloud.engine import BatchingEngine, KVGeometry, KVPool, Work, required_attention
from cloud.engine.packing import pack_linear_layers
from lambda_split.partition import GrowingKVCache, load_trunk, open_checkpoint
from tests.cloud.serving import WIDTH, same
from tests.tiny_models import LAYERS, VARIANTS, save_tiny

ALL = range(LAYERS)
SPLITS = [ALL, range(1, 5), range(2, 4), range(1, 6), range(3), range(3, 6)]
POSITIONS = 200


def engine_of(checkpoint, *, blocks=400, block_positions=4, lane=20, packed=False, **settings):
    geometry = KVGeometry(
        layers=ALL,
        kv_heads=checkpoint.kv_heads,
        head_dim=checkpoint.head_dim,
        dtype=torch.float32,
        devices=[torch.device("cpu")],
    )
    pool = KVPool(geometry, block_positions=block_positions, blocks=blocks, lane=lane)
    trunk = load_trunk(checkpoint, ALL, attention=required_attention())
    if packed:
        pack_linear_layers(trunk)
    return BatchingEngine(
        trunk,
        width=WIDTH,
        dtype=torch.float32,
        pool=pool,
        max_sessions=8,
        max_positions=POSITIONS,
        **settings,
    )


def play(engine, reference, *, steps=25):
    """Random steps of sessions with different splits; every outcome equals its session alone."""
    chance = random.Random(1)
    sessions = [
        (engine.open(layers, POSITIONS), GrowingKVCache(POSITIONS, layers)) for layers in SPLITS
    ]
    for number in range(steps):
        batch, wanted = [], []
        for session, cache in sessions:
            if chance.random() < 0.3:
                continue
            # Sometimes some positions are written again; sometimes it is a whole prompt.
            start = cache.length if chance.random() < 0.7 else chance.randint(0, cache.length)
            tokens = chance.choice([1, 1, 1, 5, 33])
            start = min(start, POSITIONS - tokens)
            hidden = torch.from_numpy(
                np.random.default_rng(number).normal(size=(tokens, WIDTH)).astype(np.float32)
            )
            reply = chance.randint(0, tokens)
            batch.append(Work(session, start, hidden, reply))
            with torch.inference_mode():
                cache.truncate(start)
                positions = torch.arange(start, start + tokens)[None]
                out = reference(hidden[None], positions, cache, session.layers)[0]
            wanted.append(out[tokens - reply :])
        for outcome, expected in zip(engine.step(batch), wanted, strict=True):
            assert same(outcome.hidden, expected)


@pytest.mark.parametrize("lane", [20, 1], ids=["neighbouring", "scattered"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_ragged_batches_of_different_splits_equal_sessions_alone(variant, lane, tmp_path):
    save_tiny(variant, tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    # As the server does on a CPU: linear layers packed.
    engine = engine_of(checkpoint, lane=lane, packed=lane == 20)
    play(engine, load_trunk(checkpoint, ALL))

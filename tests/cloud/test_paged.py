"""One call for all sessions, and recorded steps: what is handed to the kernels, without a GPU.

The kernel here computes what PyTorch's documentation of ``varlen_attn`` says, in plain PyTorch; a
recording here runs its function again. Both only see what theirs on a GPU would see.
"""

import numpy as np
import pytest
import torch

from cloud.engine import KVGeometry, KVPool, Work
from cloud.engine.attention import attend_by_session
from cloud.engine.paged import PagedAttention, best_attention
from lambda_split.partition import load_trunk, open_checkpoint
from tests.cloud.serving import WIDTH, same
from tests.cloud.test_families import ALL, POSITIONS, engine_of, play
from tests.tiny_models import VARIANTS, save_tiny


def documented_kernel(  # noqa: PLR0917 - the signature of the real one
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa,
    seqused_k, block_table,
):  # fmt: skip
    assert cu_seq_k is None
    assert cu_seq_q.dtype == seqused_k.dtype == block_table.dtype == torch.int32
    assert enable_gqa == (query.shape[1] != key.shape[2])
    out = torch.zeros_like(query)
    for row in range(len(seqused_k)):
        begin, end = int(cu_seq_q[row]), int(cu_seq_q[row + 1])
        used = int(seqused_k[row])
        assert end - begin <= max_q
        assert used <= max_k
        keys = key[block_table[row].long()].flatten(0, 1)[:used]
        values = value[block_table[row].long()].flatten(0, 1)[:used]
        groups = query.shape[1] // keys.shape[1]
        keys, values = (x.repeat_interleave(groups, dim=1) for x in (keys, values))
        scores = torch.einsum("qhd,khd->hqk", query[begin:end], keys) * scale
        # Queries are aligned with the last keys.
        positions = torch.arange(used - (end - begin), used)[:, None]
        numbers = torch.arange(used)[None]
        left, right = window_size
        seen = numbers <= positions + right
        if left >= 0:
            seen &= numbers >= positions - left
        weights = torch.softmax(scores.masked_fill(~seen, float("-inf")), dim=-1)
        out[begin:end] = torch.einsum("hqk,khd->qhd", weights, values)
    return out


def rerun(function):
    output = function()

    def replay():
        output.copy_(function())

    return output, replay


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_call_for_all_sessions_equals_each_alone(variant, tmp_path):
    save_tiny(variant, tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    engine = engine_of(checkpoint, lane=1, attend=PagedAttention(documented_kernel))
    play(engine, load_trunk(checkpoint, ALL))


@pytest.mark.parametrize("variant", ["llama", "mistral", "gemma3"])
@pytest.mark.parametrize("sessions", [1, 3, 4])
def test_recorded_steps_equal_plain_ones(variant, sessions, tmp_path):
    save_tiny(variant, tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    attend = PagedAttention(documented_kernel)
    recorded = []

    def record(function):
        recorded.append(function)
        return rerun(function)

    engines = [engine_of(checkpoint, attend=attend, record=way) for way in (None, record)]
    opened = [[engine.open(ALL, POSITIONS) for _ in range(sessions)] for engine in engines]
    for step, tokens in enumerate([7, *[1] * 30]):
        start = 0 if step == 0 else 6 + step
        hidden = np.random.default_rng(step).normal(size=(sessions, tokens, WIDTH))
        chosen = range(sessions) if step % 3 else range(max(1, sessions - 1))
        if step == 0:
            chosen = range(sessions)
        results = []
        for engine, caches in zip(engines, opened, strict=True):
            batch = [
                Work(caches[i], min(start, 7 + step), torch.tensor(hidden[i]).float(), tokens)
                for i in chosen
            ]
            results.append(list(engine.step(batch)))
        for plain, replayed in zip(*results, strict=True):
            if isinstance(plain, Exception):  # who sat a step out has a gap, in both
                assert type(plain) is type(replayed)
            else:
                assert same(replayed.hidden, plain.hidden)
    assert 1 <= len(recorded) <= 2  # a few sizes, each once


def test_a_recording_that_computes_something_else_is_not_used(tmp_path, caplog):
    save_tiny("llama", tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))

    def wrong(function):
        output = function() * 2
        return output, lambda: None

    attend = PagedAttention(documented_kernel)
    plain, broken = (engine_of(checkpoint, attend=attend, record=way) for way in (None, wrong))
    for start in range(4):
        hidden = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(start))
        found = []
        for engine in (plain, broken):
            if start == 0:
                engine.only = engine.open(ALL, POSITIONS)
            (outcome,) = engine.step([Work(engine.only, start, hidden, 1)])
            found.append(outcome.hidden)
        assert same(*found)
    assert "cannot be recorded" in caplog.text


def pool(dtype=torch.float32, device="cpu"):
    geometry = KVGeometry(
        layers=range(1), kv_heads=2, head_dim=8, dtype=dtype, devices=[torch.device(device)]
    )
    return KVPool(geometry, block_positions=8, blocks=8, lane=2)


@pytest.mark.parametrize("fault", ["raises", "differs", "nan"])
def test_a_kernel_that_does_not_do_here_is_not_taken(fault, monkeypatch, caplog):
    def kernel(query, *args, **kwargs):
        if fault == "raises":
            raise RuntimeError("not built for this device")
        out = documented_kernel(query, *args, **kwargs)
        return out + (1.0 if fault == "differs" else float("nan"))

    monkeypatch.setattr("cloud.engine.paged._is_host", lambda _: False)
    assert best_attention(pool(), 4, kernel) is attend_by_session
    assert "session by session" in caplog.text


def test_a_kernel_that_does_is_taken(monkeypatch):
    monkeypatch.setattr("cloud.engine.paged._is_host", lambda _: False)
    assert isinstance(best_attention(pool(), 4, documented_kernel), PagedAttention)


def test_on_a_cpu_each_session_attends_for_itself():
    assert best_attention(pool(), 4, documented_kernel) is attend_by_session


def test_devices_with_ever_other_splits_do_not_add_recordings_without_end(tmp_path):
    save_tiny("llama", tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    recorded = []

    def record(function):
        recorded.append(function)
        return rerun(function)

    attend = PagedAttention(documented_kernel)
    plain, recording = (engine_of(checkpoint, attend=attend, record=way) for way in (None, record))
    splits = [range(a, b) for a in ALL for b in range(a + 1, ALL.stop + 1)]
    assert len(splits) > 4
    for layers in splits:
        hidden = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(0))
        found = []
        for engine in (plain, recording):
            session = engine.open(layers, POSITIONS)
            (outcome,) = engine.step([Work(session, 0, hidden, 1)])
            found.append(outcome.hidden)
            engine.close(session)
        assert same(*found)
    assert len(recorded) == 4

"""Layers spread over devices. Without GPUs: the plan, the hooks, and what they move."""

from __future__ import annotations

import pytest
import torch

from cloud.engine import Work
from cloud.loading import TrunkSettings, choose_devices, load_service
from cloud.spreading import parse_devices, plan_layers, spread
from lambda_split.errors import UsageError
from lambda_split.partition import GrowingKVCache, load_trunk, open_checkpoint
from lambda_split.partition.masks import Masks
from lambda_split.split import Split
from tests.cloud.serving import same
from tests.tiny_models import save_tiny

LAYERS = range(1, 5)
CPU = torch.device("cpu")


def run(trunk, hidden):
    cache = GrowingKVCache(32, LAYERS)
    tokens = hidden.shape[1]
    first = trunk(hidden[:, :5], torch.arange(5)[None], cache)
    rest = trunk(hidden[:, 5:], torch.arange(5, tokens)[None], cache)
    return torch.cat([first, rest], dim=1)


@pytest.mark.parametrize("variant", ["llama", "gemma3", "gpt2", "mistral"])
def test_hooks_change_no_number(variant, tmp_path):
    """The same machinery as over two GPUs, with the CPU named twice."""
    save_tiny(variant, tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    hidden = torch.randn(1, 12, checkpoint.hidden_size, generator=torch.Generator().manual_seed(1))
    plain, spread_out = load_trunk(checkpoint, LAYERS), load_trunk(checkpoint, LAYERS)
    assert spread(spread_out, [CPU, CPU], room=[10**9, 10**9]) == [CPU] * 4
    assert all(hasattr(layer, "_hf_hook") for layer in spread_out.stack.layers)
    assert torch.equal(run(spread_out, hidden), run(plain, hidden))


def test_layers_go_to_their_devices(tmp_path):
    """The meta device computes nothing, but says where things are."""
    save_tiny("llama", tmp_path)
    trunk = load_trunk(open_checkpoint(str(tmp_path)), LAYERS)
    meta = torch.device("meta")
    assert spread(trunk, [CPU, meta], room=[10**9, 10**9]) == [CPU, CPU, meta, meta]
    where = [{tensor.device for tensor in layer.parameters()} for layer in trunk.stack.layers]
    assert where == [{CPU}, {CPU}, {meta}, {meta}]
    seen = []
    for layer in trunk.stack.layers:
        layer.self_attn.q_proj.register_forward_hook(
            lambda _, args, output: seen.append((args[0].device, output.device))
        )
    cache = GrowingKVCache(32, LAYERS)
    hidden = torch.zeros(1, 3, 64)
    # The result is sent back to where the input was: what has no data cannot be.
    with pytest.raises(NotImplementedError, match="meta"):
        trunk.stack(hidden, torch.arange(3)[None], cache, Masks())
    assert seen == [(CPU, CPU), (CPU, CPU), (meta, meta), (meta, meta)]
    held = [cache._buffers[layer].keys.device for layer in LAYERS]
    assert held == [CPU, CPU, meta, meta]


@pytest.mark.parametrize(
    ("sizes", "room", "expected"),
    [
        ([1, 1, 1, 1], [8, 8], [0, 0, 1, 1]),
        ([1, 1, 1, 1], [6, 2], [0, 0, 0, 1]),
        ([1, 1, 1, 1], [8], [0, 0, 0, 0]),
        ([2, 2, 2], [4, 2], [0, 0, 1]),
        ([3, 3], [2, 4, 4], [1, 2]),
        ([1, 1, 1, 1, 1, 1], [4, 4, 4], [0, 0, 1, 1, 2, 2]),
    ],
)
def test_devices_are_filled_to_the_same_share(sizes, room, expected):
    assert plan_layers(sizes, room) == expected


@pytest.mark.parametrize(
    ("sizes", "room", "what"),
    [([4, 4], [4, 3], "8e-09 GB"), ([4, 4, 4], [7, 7], "layer 2"), ([1], [0], "free")],
)
def test_what_does_not_fit_is_said(sizes, room, what):
    with pytest.raises(UsageError, match=what):
        plan_layers(sizes, room)


def test_devices_are_parsed():
    assert parse_devices("cpu") == [CPU]
    assert parse_devices("auto")


@pytest.mark.parametrize("text", ["", "tpu", "cpu,cpu", "cuda:99", "mps", "cpu,,cpu"])
def test_devices_that_make_no_sense(text):
    with pytest.raises(UsageError, match="--devices"):
        parse_devices(text)


def test_no_devices(tmp_path):
    save_tiny("llama", tmp_path)
    trunk = load_trunk(open_checkpoint(str(tmp_path)), LAYERS)
    with pytest.raises(UsageError, match="at least one"):
        spread(trunk, [])


def test_device_and_devices_are_not_both_named():
    assert choose_devices("cpu", None) == (CPU, ())
    assert choose_devices("auto", "cpu") == (CPU, (CPU,))
    with pytest.raises(UsageError, match="not both"):
        choose_devices("cpu", "cpu")


def outputs(checkpoint, devices):
    """What an engine answers to two sessions in one step, then to one of them again."""
    settings = TrunkSettings(
        split=Split(1, 1),
        device=CPU,
        dtype=torch.float32,
        max_sessions=2,
        max_positions=64,
        devices=devices,
    )
    engine, offer = load_service(checkpoint, settings)
    generator = torch.Generator().manual_seed(2)
    sessions = [engine.open(offer.layers, 64) for _ in range(2)]
    answers = []
    for who, start, tokens in ((0, 0, 9), (1, 0, 20), (0, 9, 1)):
        assert engine.reserve(sessions[who], start + tokens)
        hidden = torch.randn(tokens, offer.hidden_size, generator=generator)
        answers += engine.step([Work(sessions[who], start, hidden, tokens)])
    return [answer.hidden for answer in answers]


@pytest.mark.parametrize("variant", ["llama", "gemma2"])
def test_an_engine_over_several_devices_answers_the_same(variant, tmp_path):
    save_tiny(variant, tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    expected = outputs(checkpoint, ())
    assert len(expected) == 3
    for answer, right in zip(outputs(checkpoint, (CPU, CPU)), expected, strict=True):
        assert same(answer, right)  # only the other one has its linear layers packed

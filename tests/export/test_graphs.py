"""Exported graphs compute what PyTorch's head and tail compute, however a sequence is fed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from export.graph_runner import GraphRunner
from lambda_split.partition import (
    GrowingKVCache,
    causal_masks,
    load_head,
    load_tail,
    open_checkpoint,
)
from lambda_split.split import Split
from tests.tiny_models import VARIANTS, VOCABULARY

# Prompt, a chunk that crosses the sliding windows of 16, single tokens, back with other tokens
# (twice: to the middle, and to the very start), and on from there.
CALLS = [
    (0, 13),
    (13, 30),
    (30, 31),
    (31, 32),
    (20, 29),
    (29, 30),
    (30, 47),
    (0, 1),
    (1, 2),
    (2, 24),
]
# One variant of each family is enough for the standard operators: what else variants differ in
# (rotary angles, tied weights) is outside of attention, and the same in both kinds of graph.
CONCAT = (
    "llama",
    "mistral",
    "qwen2-sliding",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "olmo2",
    "olmo3",
    "smollm3",
    "gpt2",
)
CASES = [(name, "shared-kv") for name in VARIANTS] + [(name, "concat-kv") for name in CONCAT]


def _runner(bundle, part, positions=64):
    graph = bundle.manifest.graphs[part]
    return GraphRunner(bundle.file(graph.file), graph, positions)


def _whole(part, sequence, *more):
    tokens = sequence.shape[1]
    positions = torch.arange(tokens)[None]
    cache = GrowingKVCache(tokens, part.stack.numbers)
    masks = causal_masks(positions, tokens, part.stack.window, torch.float32)
    with torch.no_grad():
        return part(torch.from_numpy(sequence), positions, cache, masks, *more).numpy()


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_head_equals_pytorch(name, attention, export, checkpoint_folder) -> None:
    bundle = export(name, attention=attention)
    head = load_head(open_checkpoint(str(checkpoint_folder(name))), Split())
    runner = _runner(bundle, "head")
    rng = np.random.default_rng(1)
    sequence = np.zeros((1, 0), np.int64)
    for start, end in CALLS:
        chunk = rng.integers(3, VOCABULARY, (1, end - start))
        sequence = np.concatenate((sequence[:, :start], chunk), axis=1)
        found = runner.run({"token_ids": chunk}, start, "hidden")
        np.testing.assert_allclose(found, _whole(head, sequence)[:, start:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_tail_equals_pytorch(name, attention, export, checkpoint_folder) -> None:
    bundle = export(name, attention=attention)
    tail = load_tail(open_checkpoint(str(checkpoint_folder(name))), Split())
    runner = _runner(bundle, "tail")
    rng = np.random.default_rng(2)
    sequence = np.zeros((1, 0, 64), np.float32)
    for start, end in CALLS:
        chunk = rng.normal(size=(1, end - start, 64)).astype(np.float32)
        sequence = np.concatenate((sequence[:, :start], chunk), axis=1)
        # Any rows may be asked for, in any order; most often it is the last one.
        rows = np.unique([end - start - 1, 0])[::-1].copy()
        found = runner.run({"hidden": chunk, "logit_positions": rows}, start, "logits")
        expected = _whole(tail, sequence, torch.from_numpy(rows + start))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "gemma2"])
@pytest.mark.parametrize("attention", ["shared-kv", "concat-kv"])
def test_a_device_may_have_no_layers_at_all(name, attention, export, checkpoint_folder) -> None:
    bundle = export(name, attention=attention, split=(0, 0))
    checkpoint = open_checkpoint(str(checkpoint_folder(name)))
    assert bundle.manifest.graphs["head"].kv == bundle.manifest.graphs["tail"].kv == ()
    ids = np.arange(3, 12)[None]
    hidden = _runner(bundle, "head").run({"token_ids": ids[:, 4:]}, 4, "hidden")
    expected = _whole(load_head(checkpoint, Split(0, 0)), ids)
    np.testing.assert_allclose(hidden, expected[:, 4:], rtol=1e-5, atol=1e-5)
    feeds = {"hidden": expected, "logit_positions": np.array([8])}
    logits = _runner(bundle, "tail").run(feeds, 0, "logits")
    tail = load_tail(checkpoint, Split(0, 0))
    np.testing.assert_allclose(
        logits, _whole(tail, expected, torch.tensor([8])), rtol=1e-4, atol=1e-4
    )


def test_several_layers_have_a_cache_each(export, checkpoint_folder) -> None:
    bundle = export("gemma2", split=(2, 3))
    checkpoint = open_checkpoint(str(checkpoint_folder("gemma2")))
    graph = bundle.manifest.graphs["tail"]
    assert len(graph.kv) == 3
    assert {f"past.{i}.{what}" for i in range(3) for what in ("key", "value")} < set(graph.inputs)
    rng = np.random.default_rng(3)
    sequence = rng.normal(size=(1, 40, 64)).astype(np.float32)
    expected = _whole(load_tail(checkpoint, Split(2, 3)), sequence, torch.arange(40))
    runner = _runner(bundle, "tail")
    for start, end in [(0, 25), (25, 40)]:
        feeds = {"hidden": sequence[:, start:end], "logit_positions": np.arange(end - start)}
        found = runner.run(feeds, start, "logits")
        np.testing.assert_allclose(found, expected[:, start:end], rtol=1e-4, atol=1e-4)


def test_a_larger_buffer_changes_nothing(export) -> None:
    bundle = export("gemma2", attention="shared-kv")
    ids = np.arange(3, 40)[None]
    small, large = (_runner(bundle, "head", positions) for positions in (37, 500))
    for start, end in [(0, 30), (30, 37)]:
        feeds = {"token_ids": ids[:, start:end]}
        np.testing.assert_array_equal(
            small.run(feeds, start, "hidden"), large.run(feeds, start, "hidden")
        )


def test_concat_kv_in_fp32_uses_standard_operators_only(export) -> None:
    bundle = export("gemma2", attention="concat-kv")
    for part in ("head", "tail"):
        model = onnx.load(bundle.file(f"{part}.onnx"), load_external_data=False)
        assert {node.domain for node in model.graph.node} == {""}
        assert [opset.domain for opset in model.opset_import] == [""]
        onnx.checker.check_model(str(bundle.file(f"{part}.onnx")))


def test_shared_kv_appends_with_one_operator_a_layer(export) -> None:
    bundle = export("llama", attention="shared-kv")
    model = onnx.load(bundle.file("head.onnx"), load_external_data=False)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("GroupQueryAttention") == 1
    assert "Softmax" not in kinds


def test_graphs_name_their_axes_and_nothing_of_the_exporting_machine(export) -> None:
    bundle = export("llama", attention="shared-kv")
    model = onnx.load(bundle.file("head.onnx"), load_external_data=False)
    axes = {
        axis.dim_param
        for value in (*model.graph.input, *model.graph.output)
        for axis in value.type.tensor_type.shape.dim
        if axis.dim_param
    }
    assert axes == {"tokens", "capacity"}
    for part in ("head", "tail"):
        raw = bundle.file(f"{part}.onnx").read_bytes()
        assert b".py" not in raw
        assert str(bundle.path).encode() not in raw

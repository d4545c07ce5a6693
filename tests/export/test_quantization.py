"""The quantizer, and that onnxruntime reads its bytes as it means them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from export import QuietProgress
from export.quantization import dequantize_blocks, quantize_blocks
from export.weights import replace_weights


def _relative(expected, found) -> float:
    return float((expected - found).square().mean().sqrt() / expected.square().mean().sqrt())


def _round_to_nearest(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """The textbook: the block's range, divided evenly."""
    blocks = weight.reshape(weight.shape[0], -1, 64 if bits == 4 else 32)
    low = blocks.amin(-1, keepdim=True).clamp(max=0)
    high = blocks.amax(-1, keepdim=True).clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    zero = torch.round(-low / scale)
    values = (torch.round(blocks / scale) + zero).clamp(0, 2**bits - 1)
    return ((values - zero) * scale).reshape(weight.shape)


@pytest.mark.parametrize(("bits", "limit"), [(8, 0.006), (4, 0.09)])
def test_error_is_below_that_of_rounding_to_the_range(bits, limit) -> None:
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    error = _relative(weight, dequantize_blocks(quantize_blocks(weight, bits)))
    assert error < limit
    assert error < _relative(weight, _round_to_nearest(weight, bits))


@given(
    columns=st.integers(1, 100),
    bits=st.sampled_from([4, 8]),
    seed=st.integers(0, 1000),
    shift=st.floats(-3, 3),
)
@settings(max_examples=60, deadline=None)
def test_every_weight_is_within_reach_of_its_block(columns, bits, seed, shift) -> None:
    weight = torch.randn(3, columns, generator=torch.Generator().manual_seed(seed)) + shift
    found = dequantize_blocks(quantize_blocks(weight, bits))
    assert found.shape == weight.shape
    span = max(weight.max().item(), 0.0) - min(weight.min().item(), 0.0)
    # Half a step of rounding, half a step of the zero point, and what clipping gives away.
    assert (weight - found).abs().max().item() <= span * (0.2 if bits == 4 else 0.01)


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_and_constants_are_exact(bits) -> None:
    weight = torch.zeros(2, 192)
    weight[1, :64] = 0.5
    weight[1, 64:128] = -2.0
    torch.testing.assert_close(dequantize_blocks(quantize_blocks(weight, bits)), weight)


def test_rows_do_not_depend_on_how_many_are_quantized_at_once(monkeypatch) -> None:
    weight = torch.randn(50, 70)
    whole = quantize_blocks(weight, 4)
    monkeypatch.setattr("export.quantization._CHUNK_WEIGHTS", 128 * 7)
    pieces = quantize_blocks(weight, 4)
    assert torch.equal(whole.packed, pieces.packed)
    assert torch.equal(whole.scales, pieces.scales)
    assert torch.equal(whole.zero_points, pieces.zero_points)


def _run(module: nn.Module, inputs: torch.Tensor) -> np.ndarray:
    program = torch.onnx.export(
        module.eval(), (inputs,), dynamo=True, opset_version=18, verbose=False, input_names=["x"]
    )
    raw = ir.to_proto(program.model).SerializeToString()
    session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": inputs.numpy()})[0]


def _replaced(module: nn.Module, weights: str, embedding: nn.Module | None = None) -> nn.Module:
    part = nn.Sequential(module)
    replace_weights(part, weights, token_embedding=embedding, progress=QuietProgress())
    return part


@pytest.mark.parametrize("columns", [128, 48, 96, 100])
@pytest.mark.parametrize(("weights", "bits"), [("int4", 4), ("int8", 8)])
def test_onnxruntime_multiplies_with_these_weights(columns, weights, bits) -> None:
    torch.manual_seed(columns)
    linear = nn.Linear(columns, 40)
    matrix = dequantize_blocks(quantize_blocks(linear.weight.detach(), bits))
    x = torch.randn(1, 6, columns)
    expected = nn.functional.linear(x, matrix, linear.bias.detach())
    found = torch.from_numpy(_run(_replaced(linear, weights), x))
    assert _relative(expected, found) < 0.01  # activations are rounded to 8 bits


@pytest.mark.parametrize("width", [128, 48, 96, 100, 33])
@pytest.mark.parametrize(("weights", "bits"), [("int4", 4), ("int8", 8)])
def test_onnxruntime_gathers_these_rows(width, weights, bits) -> None:
    torch.manual_seed(width)
    embedding = nn.Embedding(50, width)
    table = embedding.weight.detach().clone()
    expected = dequantize_blocks(quantize_blocks(table, bits))
    if weights == "int4" and width % 2:
        expected = table.half().float()  # nibbles cannot be paired in a row
    ids = torch.tensor([[0, 3, 49, 3]])
    found = _run(_replaced(embedding, weights, embedding), ids)
    np.testing.assert_allclose(found[0], expected[ids[0]].numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("weights", "limit"), [("fp32", 1e-6), ("fp16", 1e-3)])
def test_floating_formats(weights, limit) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(48, 40)
    x = torch.randn(1, 6, 48)
    expected = linear(x).detach()
    found = torch.from_numpy(_run(_replaced(linear, weights), x))
    assert _relative(expected, found) < limit

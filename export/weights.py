"""The weight formats: modules that stand in for linear layers and embeddings during the trace.

==========  ==============================  ==========================  ==========================
format      linear layers                   token embedding             bytes a weight
==========  ==============================  ==========================  ==========================
``fp32``    Gemm                            Gather                      4
``fp16``    Cast, Gemm                      Gather, Cast                2
``int8``    MatMulNBits, 8 bits             GatherBlockQuantized        1 + 5/32
``int4``    MatMulNBits, 4 bits             GatherBlockQuantized        1/2 + 4.5/64
==========  ==============================  ==========================  ==========================

*fp16* halves what is stored and sent. The arithmetic is float32, because processors without half-
precision units (most PCs) would convert every weight at every token. onnxruntime folds the casts
while it loads: linear layers then take their float32 size in memory, but the embedding, of which
only rows are read and cast, stays at half size. *int8* and *int4* stay packed in memory. Their
operators are of the ``com.microsoft`` domain; ``accuracy_level`` 4 lets the kernels round
activations to 8 bits, a block at a time.

Norms, biases and learned position embeddings are small and stay float32.

The weight of a linear layer keeps the checkpoint's (out, in) layout in every format, which is also
that of the embedding: a tied embedding and LM head have the same bytes and are stored once (packed
only if the width is a multiple of the block, since the two operators pad differently).
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from export.progress import Progress
from export.quantization import Bits, quantize_blocks
from lambda_split.bundle import WeightFormat

__all__ = ["replace_weights"]

_DOMAIN = "com.microsoft"
_ACCURACY_LEVEL = 4


class _GemmLinear(nn.Module):
    """``x Wᵀ + b`` with W as stored: no transposed copy of it, on disk or in memory."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Buffer(weight)
        self.bias = None if bias is None else nn.Buffer(bias.float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (B, T, K) -> (B·T, K): Gemm takes matrices
        inputs = [rows, self.weight.float()] + ([] if self.bias is None else [self.bias])
        width = self.weight.shape[0]
        output = torch.onnx.ops.symbolic(
            "Gemm", inputs, {"transB": 1}, dtype=x.dtype, shape=(rows.shape[0], width)
        )
        return output.reshape(*x.shape[:-1], width)


class _PackedLinear(nn.Module):
    """``x Wᵀ + b`` with W in blocks."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, bits: Bits) -> None:
        super().__init__()
        quantized = quantize_blocks(weight, bits)
        self.packed = nn.Buffer(quantized.packed)
        self.scales = nn.Buffer(quantized.scales)
        self.zero_points = nn.Buffer(quantized.zero_points)
        self.bias = None if bias is None else nn.Buffer(bias.float())
        self.columns = quantized.columns
        self.bits = bits
        self.block_size = quantized.block_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.packed.shape[0]
        output = torch.onnx.ops.symbolic(
            f"{_DOMAIN}::MatMulNBits",
            (x, self.packed, self.scales, self.zero_points),
            {
                "K": self.columns,
                "N": rows,
                "bits": self.bits,
                "block_size": self.block_size,
                "accuracy_level": _ACCURACY_LEVEL,
            },
            dtype=x.dtype,
            shape=(*x.shape[:-1], rows),
            version=1,
        )
        return output if self.bias is None else output + self.bias


class _HalfEmbedding(nn.Module):
    """Rows of a float16 table, in float32."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = nn.Buffer(embedding.weight.to(torch.float16))
        self.scale = _scale_of(embedding)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        rows = nn.functional.embedding(token_ids, self.weight).float()
        return rows if self.scale is None else rows * self.scale


class _PackedEmbedding(nn.Module):
    """Rows of a table in blocks."""

    def __init__(self, embedding: nn.Embedding, bits: Bits) -> None:
        super().__init__()
        quantized = quantize_blocks(embedding.weight, bits)
        # (V, blocks, block_size · bits / 8) -> (V, W · bits / 8): no padded block for this operator
        packed = quantized.packed.flatten(1)[:, : embedding.embedding_dim * bits // 8]
        self.packed = nn.Buffer(packed.contiguous())
        self.scales = nn.Buffer(quantized.scales)
        self.zero_points = nn.Buffer(quantized.zero_points)
        self.scale = _scale_of(embedding)
        self.width = embedding.embedding_dim
        self.bits = bits
        self.block_size = quantized.block_size

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        rows = torch.onnx.ops.symbolic(
            f"{_DOMAIN}::GatherBlockQuantized",
            (self.packed, token_ids, self.scales, self.zero_points),
            {
                "bits": self.bits,
                "block_size": self.block_size,
                "gather_axis": 0,
                "quantize_axis": 1,
            },
            dtype=torch.float32,
            shape=(*token_ids.shape, self.width),
            version=1,
        )
        return rows if self.scale is None else rows * self.scale


def _scale_of(embedding: nn.Embedding) -> torch.Tensor | None:
    # Gemma's embedding multiplies by the root of the width, from a buffer of its own.
    scale = getattr(embedding, "embed_scale", None)
    return None if scale is None else nn.Buffer(torch.as_tensor(scale).float().clone())


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, weights: WeightFormat) -> nn.Module:
    match weights:
        case "fp32":
            return _GemmLinear(weight, bias)
        case "fp16":
            return _GemmLinear(weight.to(torch.float16), bias)
        case "int8":
            return _PackedLinear(weight, bias, 8)
        case "int4":
            return _PackedLinear(weight, bias, 4)


def _embedding(embedding: nn.Embedding, weights: WeightFormat) -> nn.Module:
    if weights == "fp32":
        return embedding
    # Two 4-bit weights share a byte, so an odd width cannot be packed.
    if weights == "fp16" or (weights == "int4" and embedding.embedding_dim % 2):
        return _HalfEmbedding(embedding)
    return _PackedEmbedding(embedding, 8 if weights == "int8" else 4)


@torch.no_grad()
def replace_weights(
    part: nn.Module,
    weights: WeightFormat,
    *,
    token_embedding: nn.Module | None,
    progress: Progress,
) -> None:
    """Put each linear layer, and the token embedding, into a format; one at a time.

    The float32 weight of a layer is released when its stand-in is made, if nobody else holds it.
    Afterwards ``part`` can only be traced, not run: the stand-ins emit ONNX operators.

    Args:
        part: A head or tail in float32.
        weights: The format.
        token_embedding: The embedding to convert too; other embeddings stay as they are.
        progress: Told about each layer.
    """
    names = [
        name
        for name, module in part.named_modules()
        if isinstance(module, nn.Linear | Conv1D) or module is token_embedding
    ]
    del token_embedding  # a reference would keep its weight
    progress.stage(f"writing weights as {weights}", len(names))
    for name in names:
        part.set_submodule(name, _replacement(part.get_submodule(name), weights))
        progress.advance()


def _replacement(module: nn.Module, weights: WeightFormat) -> nn.Module:
    if isinstance(module, nn.Embedding):
        return _embedding(module, weights)
    parameters = dict(module.named_parameters())
    weight, bias = parameters["weight"].detach(), parameters.get("bias")
    # GPT-2's Conv1D is a linear layer that stores (in, out).
    return _linear(weight.T.contiguous() if isinstance(module, Conv1D) else weight, bias, weights)

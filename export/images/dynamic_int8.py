"""Linear layers of 8 bits whose inputs are quantized as they come.

``x Wᵀ + b`` becomes ``DynamicQuantizeLinear``, ``MatMulInteger`` and a multiplication by the two
scales; onnxruntime runs the three as one kernel. Weights have a scale for each output and no zero
point; activations have one scale and zero point for the whole tensor. For a text encoder, which
runs once a picture over all tokens, this is two to three times as fast as weights in blocks, and
its hidden states have no values that are thousands of times the others, as language models' have.
"""

from __future__ import annotations

import torch
from torch import nn

from export.progress import Progress

__all__ = ["replace_linear_layers"]

_LARGEST = 127


class _DynamicLinear(nn.Module):
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()  # (out, in)
        scales = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / _LARGEST
        quantized = torch.round(weight / scales[:, None]).clamp(-_LARGEST, _LARGEST)
        self.weight = nn.Buffer(quantized.to(torch.int8).T.contiguous())  # (in, out)
        self.scales = nn.Buffer(scales)
        self.bias = None if linear.bias is None else nn.Buffer(linear.bias.detach().float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        codes, scale, zero_point = torch.onnx.ops.symbolic_multi_out(
            "DynamicQuantizeLinear",
            (x,),
            dtypes=(torch.uint8, torch.float32, torch.uint8),
            shapes=(x.shape, (), ()),
        )
        products = torch.onnx.ops.symbolic(
            "MatMulInteger",
            (codes, self.weight, zero_point),
            dtype=torch.int32,
            shape=(*x.shape[:-1], self.weight.shape[1]),
        )
        output = products.float() * (scale * self.scales)
        return output if self.bias is None else output + self.bias


@torch.no_grad()
def replace_linear_layers(module: nn.Module, progress: Progress) -> None:
    """Put each linear layer into this format, one at a time.

    Afterwards ``module`` can only be traced, not run: what takes a layer's place emits ONNX.

    Args:
        module: A text encoder in float32.
        progress: Told about each layer.
    """
    names = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    progress.stage("writing weights as int8", len(names))
    for name in names:
        linear = module.get_submodule(name)
        if isinstance(linear, nn.Linear):
            module.set_submodule(name, _DynamicLinear(linear))
        progress.advance()

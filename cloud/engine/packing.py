"""Linear layers with their weights laid out for the processor, once.

PyTorch multiplies float32 matrices with MKL, which is slow on processors that are not Intel's, and
slowest for the few rows of a decode step. oneDNN, which it ships as well, is fast on all of them if
it may bring the weights into its own layout beforehand (PyTorch 2.13 on an AMD EPYC, 2048 × 5504:
1.9 times as fast for one row, 3.2 times for eight, 2.3 times for 512).
"""

from __future__ import annotations

import logging
from typing import cast

import torch
from torch import nn
from torch.nn.functional import pad

__all__ = ["PackedLinear", "pack_linear_layers"]

_logger = logging.getLogger(__name__)
_ROWS = 64  # what the layout is made for; it serves other numbers as well
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.03}  # relative to the largest value


class PackedLinear(nn.Module):
    """What a linear layer computes, on a CPU, without gradients.

    Args:
        linear: Its weight is copied; float32 or bfloat16.

    Raises:
        RuntimeError, AttributeError: this PyTorch cannot do that here.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self._bias = None if linear.bias is None else linear.bias.detach()
        # An opaque layout: no state that could be saved.
        self._packed = cast(
            "torch.Tensor",
            torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS),  # noqa: SLF001 - PyTorch's own compiler calls it so
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        rows = hidden.reshape(-1, self.in_features)  # (rows, in_features)
        count = len(rows)
        more = _rounded(count) - count
        if more:
            rows = pad(rows, (0, 0, 0, more))
        out = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 - as above
            rows, self._packed, self._bias, "none", [], ""
        )
        return cast("torch.Tensor", out[:count].reshape(*hidden.shape[:-1], self.out_features))


def _rounded(rows: int) -> int:
    """The number of rows that is computed for so many.

    oneDNN makes code for each number that it meets, and keeps up to a thousand of them: with every
    number that batches happen to have, half a gigabyte, made anew all the time.
    """
    step = 1 if rows <= 16 else 8 if rows <= 64 else 32 if rows <= 256 else 128
    return -(-rows // step) * step


def pack_linear_layers(model: nn.Module) -> int:
    """Replace a model's linear layers on the CPU, one after another; in place.

    Whether a layer can be packed here is tried, not looked up: one that fails or computes something
    else stays as it is.

    Returns:
        How many were replaced.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch has no annotation
        return 0
    found = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if type(layer) is nn.Linear
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype in _TOLERANCE
    ]
    replaced = 0
    while found:
        parent, name, layer = found.pop()
        packed = _packed(layer)
        if packed is not None:
            setattr(parent, name, packed)
            replaced += 1
        del layer  # its weight, before the next one is packed
    return replaced


@torch.inference_mode()
def _packed(layer: nn.Linear) -> PackedLinear | None:
    """The layer packed, if that computes the same."""
    trial = torch.linspace(-1, 1, 3 * layer.in_features).reshape(3, -1).to(layer.weight.dtype)
    try:
        packed = PackedLinear(layer)
        found = packed(trial).float()
    except (RuntimeError, AttributeError) as error:
        _logger.warning("linear layers stay as they are: %s", error)
        return None
    wanted = layer(trial).float()
    scale = float(wanted.abs().max().clamp(min=1e-6))
    if not float((found - wanted).abs().max()) <= _TOLERANCE[layer.weight.dtype] * scale:
        _logger.warning("a linear layer computes something else when packed: it stays as it is")
        return None
    return packed

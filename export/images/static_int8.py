"""Graphs whose convolutions are of 8 bits, with ranges of activations from example inputs.

onnxruntime's static quantization: weights with a scale for each output channel and no zero point,
activations with one scale and zero point for each tensor, written as pairs of QuantizeLinear and
DequantizeLinear around each convolution, which the runtime folds into integer kernels. The first
convolutions and the last one stay in float32: they take and give the few channels of latents,
noise and picture, so they cost little time, and each of their numbers counts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from export.weight_file import WeightFile, write_graph

__all__ = ["quantize_convolutions"]

Floats = NDArray[np.float32]

_FEW_CHANNELS = 8


class _Examples(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    def __init__(self, feeds: Sequence[Mapping[str, Floats]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Mapping[str, Floats] | None:
        """The next example, as the library asks for it."""
        return next(self._feeds, None)


def quantize_convolutions(
    model: ir.Model, feeds: Sequence[Mapping[str, Floats]], folder: Path
) -> ir.Model:
    """Quantize a traced graph; its weights lie in ``folder`` until the result is written.

    Args:
        model: The float32 graph.
        feeds: Examples, float32 by the inputs' names, as the graph takes them.
        folder: An empty folder for files that are not needed any more once the result is written.
    """
    excluded = [node.name or "" for node in model.graph if _has_few_channels(node)]
    with WeightFile(folder) as weight_file:
        write_graph(model, folder / "float.onnx", weight_file)
        weight_file.finish()
    quantized = folder / "int8.onnx"
    with _quiet_quantizer():
        quantize_static(
            folder / "float.onnx",
            quantized,
            _Examples(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
            calibrate_method=CalibrationMethod.MinMax,
            calibration_providers=["CPUExecutionProvider"],
            use_external_data_format=True,
        )
    return ir.load(quantized)


def _has_few_channels(node: ir.Node) -> bool:
    kernel = node.inputs[1] if node.op_type == "Conv" else None
    if kernel is None or kernel.const_value is None:
        return False
    outputs, inputs = kernel.const_value.numpy().shape[:2]
    return bool(min(outputs, inputs) <= _FEW_CHANNELS)


@contextmanager
def _quiet_quantizer() -> Iterator[None]:
    # It advises a preprocessing that the exporter has done already.
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

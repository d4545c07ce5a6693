"""Weights of a graph in half precision: stored as float16, computed in float32.

Few small processors multiply in half precision (see ``docs/adr/0008-weight-formats.md``), so each
stored weight is cast where it is used; onnxruntime folds the casts while it loads. What is added or
multiplied number by number is no matrix, takes no room and stays: the frequencies of a time's
embedding, rounded and then multiplied by hundreds, would be other frequencies.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lambda_split.errors import VerificationFailed

__all__ = ["store_half"]

_LARGEST = float(np.finfo(np.float16).max)
_ELEMENTWISE = {"Add", "Div", "Mul", "Sub"}


def store_half(model: ir.Model) -> None:
    """Put each float32 matrix or kernel of a graph into float16, and a cast behind it.

    Raises:
        VerificationFailed: a weight is beyond what float16 holds.
    """
    graph = model.graph
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) < 2:
            continue
        if any(use.node.op_type in _ELEMENTWISE for use in value.uses()):
            continue
        array = tensor.numpy()
        largest = float(np.abs(array).max(initial=0.0))
        if not largest <= _LARGEST:
            raise VerificationFailed("the largest weight, for fp16,", largest, _LARGEST)
        stored = ir.Value(
            name=f"{name}.half",
            type=ir.TensorType(ir.DataType.FLOAT16),
            shape=ir.Shape(array.shape),
            const_value=ir.Tensor(array.astype(np.float16), name=f"{name}.half"),
        )
        cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT.value}, name=f"{name}.cast")
        cast.outputs[0].type = value.type
        cast.outputs[0].shape = value.shape
        value.replace_all_uses_with(cast.outputs[0])
        del graph.initializers[name]
        graph.register_initializer(stored)
        graph.insert_before(graph[0], cast)

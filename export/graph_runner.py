"""Run one exported graph with onnxruntime, its cache included."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lambda_split.bundle import Graph

__all__ = ["GraphRunner"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class GraphRunner:
    """A session and the cache of one sequence.

    Args:
        path: The ``.onnx`` file; its weights are found beside it.
        graph: How to feed it.
        positions: Capacity of the cache.
    """

    def __init__(self, path: Path, graph: Graph, positions: int) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Idle threads would spin beside PyTorch's.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._graph = graph
        self._shared = graph.attention == "shared-kv"
        length = positions if self._shared else 0
        self._past: dict[str, Floats] = {
            f"{index}.{what}": np.zeros((1, kv.heads, length, kv.head_dim), np.float32)
            for index, kv in enumerate(graph.kv)
            for what in ("key", "value")
        }

    def run(self, feeds: Mapping[str, Floats | Ints], start: int, result: str) -> Floats:
        """One call.

        Args:
            feeds: By role; all inputs but ``start`` and the cache.
            start: The first position; what the cache holds from there on is forgotten.
            result: The role of the wanted output.
        """
        values = {self._graph.inputs[role]: value for role, value in feeds.items()}
        values[self._graph.inputs["start"]] = np.array([start], np.int64)
        name = self._graph.outputs[result]
        return self._append(values, name) if self._shared else self._concat(values, name, start)

    def _append(self, values: dict[str, Floats | Ints], result: str) -> Floats:
        binding = self._session.io_binding()
        binding.bind_output(result)
        for name, value in values.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for role, buffer in self._past.items():
            # The same memory as input and output: the operator appends in place.
            value = onnxruntime.OrtValue.ortvalue_from_numpy(buffer)
            binding.bind_ortvalue_input(self._graph.inputs[f"past.{role}"], value)
            binding.bind_ortvalue_output(self._graph.outputs[f"present.{role}"], value)
        self._session.run_with_iobinding(binding)
        output: Floats = binding.get_outputs()[0].numpy()
        return output

    def _concat(self, values: dict[str, Floats | Ints], result: str, start: int) -> Floats:
        for role, past in self._past.items():
            values[self._graph.inputs[f"past.{role}"]] = np.ascontiguousarray(past[:, :, :start])
        names = [result, *(self._graph.outputs[f"present.{role}"] for role in self._past)]
        output, *present = self._session.run(names, values)
        self._past = dict(zip(self._past, present, strict=True))
        found: Floats = output
        return found

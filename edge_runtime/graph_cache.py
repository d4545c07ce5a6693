"""The key-value caches of a graph's layers, in memory that onnxruntime works on in place."""

from __future__ import annotations

import contextlib
import mmap
import sys
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

from edge_runtime.graph_session import OpenedGraph
from lambda_split.bundle import KVGeometry
from lambda_split.errors import UsageError

__all__ = ["GraphCache"]

_Floats = npt.NDArray[np.float32]
_Array = npt.NDArray[np.float32 | np.int64]


class GraphCache:
    """What one session has put through one graph: its keys and values, and its buffers.

    Made by the runner whose graph it belongs to. Memory is reserved for ``capacity`` positions but
    only taken as positions fill.

    Attributes:
        capacity: The most positions it can hold.
        binding: onnxruntime's binding of the graph's inputs and outputs to arrays.
    """

    def __init__(self, opened: OpenedGraph, capacity: int) -> None:
        if capacity < 1:
            raise UsageError(f"a cache must hold at least 1 position, not {capacity}")
        self.capacity = capacity
        self.binding: onnxruntime.IOBinding = opened.session.io_binding()
        self._session = opened.session
        self._length = 0
        self._layers: _Layers
        if opened.graph.attention == "shared-kv":
            self._layers = _SharedLayers(self.binding, opened, capacity)
        else:
            self._layers = _ConcatLayers(self.binding, opened, capacity)
        self._start = np.zeros(1, dtype=np.int64)
        if "start" in opened.graph.inputs:
            _bind_input(self.binding, opened.graph.inputs["start"], self._start)
        self._inputs: dict[str, _Array] = {}
        self._output: _Floats = np.empty(0, dtype=np.float32)

    @property
    def length(self) -> int:
        """Positions that it holds."""
        return self._length

    def belongs_to(self, session: onnxruntime.InferenceSession) -> bool:
        """Whether it was made for this graph."""
        return self._session is session

    def truncate(self, length: int) -> None:
        """Forget all positions from ``length`` on; what is shorter stays as it is."""
        if length < 0:
            raise UsageError(f"a cache cannot be cut to {length} positions")
        if length < self._length:
            self._layers.truncate(self._length, length)
            self._length = length

    def prepare(self, start: int, tokens: int) -> None:
        """Bind the caches for a run of ``tokens`` positions from ``start``, the present length."""
        self._start[0] = start
        self._layers.prepare(start, tokens)

    def feed(self, name: str, values: _Array) -> None:
        """Copy an input into its bound buffer, which is kept while its shape stays."""
        buffer = self._inputs.get(name)
        if buffer is None or buffer.shape != values.shape:
            buffer = np.empty(values.shape, dtype=values.dtype)
            self._inputs[name] = buffer
            _bind_input(self.binding, name, buffer)
        np.copyto(buffer, values)

    def output(self, name: str, shape: tuple[int, ...]) -> _Floats:
        """The bound float32 buffer of the graph's main output, kept while its shape stays."""
        if self._output.shape != shape:
            self._output = np.empty(shape, dtype=np.float32)
            _bind_output(self.binding, name, self._output)
        return self._output

    def extend(self, length: int) -> None:
        """Take over what a successful run has computed: ``length`` positions in all."""
        self._layers.commit()
        self._length = length


class _Layers(Protocol):
    """How past and present of all layers share memory."""

    def prepare(self, past: int, tokens: int) -> None: ...

    def commit(self) -> None: ...

    def truncate(self, past: int, length: int) -> None: ...


class _SharedLayers:
    """One buffer a tensor, bound once as both past and present: the graph appends in place."""

    def __init__(self, binding: onnxruntime.IOBinding, opened: OpenedGraph, capacity: int) -> None:
        self._buffers = []
        for past, present, kv in _tensors(opened):
            # flat -> (1, heads, capacity, head_dim)
            buffer = _reserve(kv.heads * capacity * kv.head_dim)
            buffer = buffer.reshape(1, kv.heads, capacity, kv.head_dim)
            _bind_input(binding, past, buffer)
            _bind_output(binding, present, buffer)
            self._buffers.append(buffer)

    def prepare(self, past: int, tokens: int) -> None:
        """Nothing: the graph knows from its start where to write."""

    def commit(self) -> None:
        """Nothing: the buffer already holds the new positions."""

    def truncate(self, past: int, length: int) -> None:
        """Nothing: what lies behind the length is overwritten before it is read."""


class _ConcatLayers:
    """Two buffers a tensor: the graph reads past from one and writes present to the other.

    Tensors lie densely at the beginning of their buffer, as ONNX wants them, so nothing is
    allocated for a token; the copy from past to present is the graph's own.
    """

    def __init__(self, binding: onnxruntime.IOBinding, opened: OpenedGraph, capacity: int) -> None:
        self._binding = binding
        self._tensors = _tensors(opened)
        self._past = self._buffers(capacity)
        self._present = self._buffers(capacity)

    def _buffers(self, capacity: int) -> list[_Floats]:
        return [_reserve(kv.heads * capacity * kv.head_dim) for _, _, kv in self._tensors]

    def prepare(self, past: int, tokens: int) -> None:
        """Bind past and present at their lengths."""
        for index, (past_name, present_name, kv) in enumerate(self._tensors):
            _bind_input(self._binding, past_name, _dense(self._past[index], kv, past))
            _bind_output(
                self._binding, present_name, _dense(self._present[index], kv, past + tokens)
            )

    def commit(self) -> None:
        """The present is the next past."""
        self._past, self._present = self._present, self._past

    def truncate(self, past: int, length: int) -> None:
        """Move the first positions of each head together."""
        for index, (_, _, kv) in enumerate(self._tensors):
            kept = _dense(self._past[index], kv, past)[:, :, :length]
            _dense(self._present[index], kv, length)[...] = kept
        self.commit()


def _tensors(opened: OpenedGraph) -> list[tuple[str, str, KVGeometry]]:
    """Input name, output name and geometry of each layer's keys and values."""
    graph = opened.graph
    return [
        (graph.inputs[f"past.{layer}.{part}"], graph.outputs[f"present.{layer}.{part}"], kv)
        for layer, kv in enumerate(graph.kv)
        for part in ("key", "value")
    ]


def _reserve(count: int) -> _Floats:
    """float32 (count,) of zeros, which take memory page by page as they are written.

    numpy's own arrays do not: it asks for huge pages, and with positions as the inner dimension
    the first position of each head would take one, which may hold thousands of positions.

    Raises:
        UsageError: the system does not have that much to reserve.
    """
    size = count * np.dtype(np.float32).itemsize
    try:
        if sys.platform == "win32":
            memory = mmap.mmap(-1, size)
        else:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot reserve {size / 1e6:.0f} MB for the cache ({error}): use fewer max_positions"
        ) from error
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a kernel without huge pages knows nothing of them
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype=np.float32)  # keeps the mapping alive


def _dense(buffer: _Floats, kv: KVGeometry, positions: int) -> _Floats:
    """The beginning of a flat buffer as (1, heads, positions, head_dim)."""
    size = kv.heads * positions * kv.head_dim
    return buffer[:size].reshape(1, kv.heads, positions, kv.head_dim)


def _bind_input(binding: onnxruntime.IOBinding, name: str, array: _Array) -> None:
    """Let the graph read an array in place; the caller keeps it alive until the run is over."""
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _bind_output(binding: onnxruntime.IOBinding, name: str, array: _Array) -> None:
    """Let the graph write to an array in place; the caller keeps it alive."""
    binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

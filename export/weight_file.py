"""The file that holds the weights of all graphs of a bundle, each distinct tensor once."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import onnx_ir as ir

__all__ = ["WEIGHT_FILE_NAME", "WeightFile", "write_graph"]

WEIGHT_FILE_NAME = "weights.data"
_INLINE_BYTES = 1024  # smaller constants live in the graph, where shape inference can see them
# Large tensors start at a page, so that a runtime can map them straight from the file.
_PAGE_BYTES = 4096
_PAGED_BYTES = 64 * 1024
_ALIGNMENT_BYTES = 64


@dataclass(frozen=True)
class _Place:
    offset: int
    length: int


class WeightFile:
    """Appends tensors and remembers where each content is, by its sha256.

    Two graphs that use the same bytes, whatever shape and type they read them as, refer to one
    place: a tied embedding and LM head are stored once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = (folder / WEIGHT_FILE_NAME).open("wb")
        self._places: dict[bytes, _Place] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After finish() nothing is left to write; after a failure what is left has no use.
        with suppress(OSError):
            self._file.close()

    def finish(self) -> None:
        """Make the bytes durable."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def add(self, tensor: ir.TensorProtocol, name: str) -> ir.ExternalTensor:
        """Store a tensor, unless its bytes are there already, and return the reference to it."""
        array = np.ascontiguousarray(tensor.numpy())
        data = array.reshape(-1).view(np.uint8).data  # any shape -> bytes, without a copy
        digest = hashlib.sha256(data).digest()
        place = self._places.get(digest)
        if place is None:
            alignment = _PAGE_BYTES if len(data) >= _PAGED_BYTES else _ALIGNMENT_BYTES
            offset = -(-self._file.tell() // alignment) * alignment
            self._file.write(b"\0" * (offset - self._file.tell()))
            self._file.write(data)
            place = self._places[digest] = _Place(offset, len(data))
        return ir.ExternalTensor(
            WEIGHT_FILE_NAME,
            place.offset,
            place.length,
            tensor.dtype,
            shape=ir.Shape(array.shape),
            name=name,
            base_dir=self._folder,
        )


def write_graph(model: ir.Model, path: Path, weight_file: WeightFile) -> None:
    """Write a graph, its large constants into ``weight_file``."""
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes >= _INLINE_BYTES:
            value.const_value = weight_file.add(tensor, name)
    raw = ir.to_proto(model).SerializeToString()
    with path.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())

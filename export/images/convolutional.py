"""Writing a graph of convolutions in the weight format that was asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.images.half import store_half
from export.images.static_int8 import quantize_convolutions
from export.images.workplace import Workplace
from export.staging import writing
from lambda_split.partition.pipelines import Component

__all__ = ["write_convolutional_graph"]

Floats = NDArray[np.float32]


def write_convolutional_graph(
    work: Workplace,
    part: str,
    model: ir.Model,
    component: Component,
    feeds: Sequence[Mapping[str, Floats]],
    *,
    halves_rest: bool = False,
) -> str:
    """Put a traced graph into the export's format and write it.

    Args:
        work: The export.
        part: The folder.
        model: The float32 graph; it is changed.
        component: Whose config goes beside it.
        feeds: For int8: examples by the inputs' names, which ranges come from.
        halves_rest: In int8, store what stays float32 in half precision.

    Returns:
        The graph's file, relative to the bundle.

    Raises:
        OutputNotWritable: the disk is full, a permission is missing …
        VerificationFailed: a weight is beyond what float16 holds.
    """
    weights, progress = work.settings.weights, work.progress
    with writing(work.out):
        scratch = tempfile.TemporaryDirectory(dir=work.folder)
    with scratch as folder:
        if weights == "int8":
            progress.stage(f"calibrating {part}", 1)
            with writing(work.out):
                model = quantize_convolutions(model, feeds, Path(folder))
            progress.advance()
        if weights == "fp16" or (weights == "int8" and halves_rest):
            store_half(model)
        file = work.write_graph(part, model, component)
        del model  # it holds files of the scratch folder
    return file

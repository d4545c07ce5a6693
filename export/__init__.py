"""Checkpoint -> bundle: cut the head and the tail, trace, quantize, verify against PyTorch.

Importing this package loads neither torch nor onnx; :func:`export_bundle` does when it is called.
"""

from __future__ import annotations

import os

from export.progress import Progress, QuietProgress, TqdmProgress
from export.settings import ExportSettings
from lambda_split.bundle import Manifest
from lambda_split.errors import MissingExtra

__all__ = ["ExportSettings", "Progress", "QuietProgress", "TqdmProgress", "export_bundle"]


def export_bundle(
    model: str, out: str | os.PathLike[str], settings: ExportSettings, *, progress: Progress
) -> Manifest:
    """Write the bundle of ``model`` to the folder ``out``; see :mod:`export.exporter`.

    Raises:
        MissingExtra: torch, transformers or the ONNX packages are not installed.
        UsageError: the settings contradict the model.
        CheckpointError: the model cannot be read or cut.
        OutputExists: ``out`` exists and ``settings.overwrite`` is not set.
        OutputNotWritable: the disk is full, a permission is missing …; nothing is left behind.
        VerificationFailed: the written graphs differ too much from PyTorch; nothing is left behind.
    """
    try:
        from export.exporter import export_checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "a module", "export") from error
    return export_checkpoint(model, os.fspath(out), settings, progress=progress)

"""Checkpoint -> bundle: cut the head and the tail, trace, quantize, verify against PyTorch.

Importing this package loads neither torch nor onnx; :func:`export_bundle` does when it is called.
"""

from __future__ import annotations

import os

from export.images.settings import ImageExportSettings
from export.progress import (
    LineProgress,
    Progress,
    QuietProgress,
    TqdmProgress,
    progress_on_stderr,
)
from export.settings import ExportSettings
from lambda_split.bundle import Manifest
from lambda_split.errors import MissingExtra
from lambda_split.image_bundle import ImageManifest
from lambda_split.telemetry import disable_telemetry

__all__ = [
    "ExportSettings",
    "ImageExportSettings",
    "LineProgress",
    "Progress",
    "QuietProgress",
    "TqdmProgress",
    "export_bundle",
    "export_image_bundle",
    "is_pipeline",
    "progress_on_stderr",
]

# Before any module of this package imports onnxruntime; the one side effect of an import here.
disable_telemetry()


def export_bundle(
    model: str,
    out: str | os.PathLike[str],
    settings: ExportSettings | None = None,
    *,
    progress: Progress | None = None,
) -> Manifest:
    """Write the bundle of ``model`` to the folder ``out``; see :mod:`export.exporter`.

    Args:
        model: A local folder, a Hugging Face id, or ``demo`` for the shipped model.
        out: The bundle's folder, to be made.
        settings: Where to cut, how to store weights …; those of ``ExportSettings()`` by default.
        progress: Who is told what is being done; nobody by default.

    Returns:
        The manifest that was written.

    Raises:
        MissingExtra: torch, transformers or the ONNX packages are not installed.
        UsageError: the settings contradict the model.
        CheckpointError: the model cannot be read or cut.
        OutputExists: ``out`` exists and ``settings.overwrite`` is not set.
        OutputNotWritable: the disk is full, a permission is missing …; nothing is left behind.
        VerificationFailed: the written graphs differ too much from PyTorch; nothing is left behind.
        BundleError: what was written does not load (a bug of export); nothing is left behind.
    """
    try:
        from export.exporter import export_checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "a module", "export") from error
    return export_checkpoint(
        model, os.fspath(out), settings or ExportSettings(), progress=progress or QuietProgress()
    )


def export_image_bundle(
    model: str,
    out: str | os.PathLike[str],
    settings: ImageExportSettings | None = None,
    *,
    progress: Progress | None = None,
) -> ImageManifest:
    """Write the bundle of a text-to-image pipeline; see :mod:`export.images.exporter`.

    Args:
        model: A local folder, a Hugging Face id, or ``demo-image`` for the shipped pipeline.
        out: The bundle's folder, to be made.
        settings: Weight format, decoder …; those of ``ImageExportSettings()`` by default.
        progress: Who is told what is being done; nobody by default.

    Returns:
        The manifest that was written.

    Raises:
        MissingExtra: torch, diffusers, transformers or the ONNX packages are not installed.
        UsageError: the settings contradict the pipeline.
        CheckpointError: the pipeline cannot be read or cut.
        OutputExists: ``out`` exists and ``settings.overwrite`` is not set.
        OutputNotWritable: the disk is full, a permission is missing …; nothing is left behind.
        VerificationFailed: the written graphs differ too much from PyTorch; nothing is left behind.
        BundleError: what was written does not load (a bug of export); nothing is left behind.
    """
    try:
        from export.images.exporter import export_pipeline
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "a module", "export") from error
    return export_pipeline(
        model,
        os.fspath(out),
        settings or ImageExportSettings(),
        progress=progress or QuietProgress(),
    )


def is_pipeline(model: str, revision: str | None = None) -> bool:
    """Whether a model is a text-to-image pipeline, for :func:`export_image_bundle`.

    Raises:
        MissingExtra: what is needed to look is not installed.
    """
    try:
        from lambda_split.partition.sources import is_pipeline as find
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "a module", "export") from error
    return find(model, revision)

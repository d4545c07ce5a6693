"""What every step of a pipeline's export needs to know, and writing files of a part's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from export.images.settings import ImageExportSettings
from export.progress import Progress
from export.staging import writing
from export.weight_file import WeightFile, write_graph
from lambda_split.partition.pipelines import Component, Pipeline

__all__ = ["GRAPH_NAME", "Workplace", "as_json"]

GRAPH_NAME = "model.onnx"
# Says where the files lay when they were saved last.
_PLACES = ("_name_or_path",)


@dataclass(frozen=True)
class Workplace:
    """An export under way.

    Attributes:
        pipeline: What is exported.
        settings: How.
        folder: Where files are written.
        out: Where they will be, for messages.
        progress: Who is told.
    """

    pipeline: Pipeline
    settings: ImageExportSettings
    folder: Path
    out: Path
    progress: Progress

    def write_graph(self, part: str, model: ir.Model, component: Component) -> str:
        """Write a part's graph, weights and config into its folder.

        Args:
            part: The folder, for example ``text_encoder``.
            model: The graph.
            component: Whose config goes beside it.

        Returns:
            The graph's file, relative to the bundle.

        Raises:
            OutputNotWritable: the disk is full, a permission is missing …
        """
        folder = self.folder / part
        with writing(self.out):
            folder.mkdir()
            with WeightFile(folder) as weight_file:
                write_graph(model, folder / GRAPH_NAME, weight_file)
                weight_file.finish()
        self.write_files(part, {"config.json": as_json(component.config)})
        return f"{part}/{GRAPH_NAME}"

    def write_files(self, part: str, contents: Mapping[str, bytes]) -> None:
        """Write files into a part's folder, or with an empty ``part`` beside the folders.

        Raises:
            OutputNotWritable: the disk is full, a permission is missing …
        """
        folder = self.folder / part
        with writing(self.out):
            folder.mkdir(exist_ok=True)
            for name, raw in contents.items():
                with (folder / name).open("wb") as file:
                    file.write(raw)
                    file.flush()
                    os.fsync(file.fileno())


def as_json(config: Mapping[str, object]) -> bytes:
    """A config as a file, without the places where it lay before."""
    kept = {name: value for name, value in config.items() if name not in _PLACES}
    return (json.dumps(kept, indent=2, sort_keys=True) + "\n").encode()

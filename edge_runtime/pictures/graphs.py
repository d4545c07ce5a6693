"""A picture bundle's ONNX graphs: text encoders and VAE decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime

from edge_runtime.graph_session import (
    RuntimeSettings,
    TensorSpec,
    check_roles,
    open_session,
    quiet_run_options,
)
from edge_runtime.native_calls import call_native
from lambda_split.bundle_files import MANIFEST_NAME
from lambda_split.errors import GraphInvalid, ManifestInvalid
from lambda_split.image_bundle import ImageBundle, ImageGraph

__all__ = ["PictureGraph", "open_picture_graph"]

Tensor = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PictureGraph:
    """A graph that is loaded and matches its description.

    Attributes:
        session: onnxruntime's session.
        graph: The manifest's description.
    """

    session: onnxruntime.InferenceSession
    graph: ImageGraph

    def run(
        self, feeds: Mapping[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]
    ) -> dict[str, Tensor]:
        """Compute all outputs.

        Args:
            feeds: Inputs by role.

        Returns:
            float32 outputs by role.

        Raises:
            GraphInvalid: the graph failed.
        """
        named = {self.graph.inputs[role]: value for role, value in feeds.items()}
        roles, names = zip(*self.graph.outputs.items(), strict=True)
        try:
            run = quiet_run_options()
            found = call_native(lambda: self.session.run(list(names), named, run), run)
        except Exception as error:  # onnxruntime's classes have no common base but this
            raise GraphInvalid(self.graph.file, str(error)) from error
        return dict(zip(roles, found, strict=True))


def open_picture_graph(
    bundle: ImageBundle,
    name: str,
    settings: RuntimeSettings,
    *,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
) -> PictureGraph:
    """Load one of a bundle's graphs.

    Args:
        bundle: The checked bundle.
        name: The graph's.
        settings: Threads.
        inputs: By role, what it takes.
        outputs: By role, what it gives.

    Raises:
        ManifestInvalid: the bundle has no such graph.
        GraphInvalid: onnxruntime cannot load the file, or an input or output is missing, unknown,
            or of another type or shape.
    """
    graph = bundle.manifest.graphs.get(name)
    if graph is None:
        raise ManifestInvalid(str(bundle.path / MANIFEST_NAME), f"it has no graph {name!r}")
    session = open_session(bundle.file(graph.file), graph.file, settings)
    check_roles(session, graph.file, graph.inputs, graph.outputs, taken=inputs, given=outputs)
    return PictureGraph(session, graph)

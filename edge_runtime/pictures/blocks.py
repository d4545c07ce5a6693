"""The denoiser's first and last blocks on the device, for the split ``deep``.

A step's latents go through the first blocks, whose features the trunk is sent; what it gives goes
with the kept skip connections through the last blocks, which predict the noise. Rows run one after
another, since each takes much memory: so a row's numbers do not hang on those beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.graph_session import RuntimeSettings, TensorSpec
from edge_runtime.pictures.graphs import PictureGraph, open_picture_graph
from lambda_split.bundle_files import MANIFEST_NAME
from lambda_split.errors import GraphInvalid, ManifestInvalid
from lambda_split.image_bundle import ImageBundle
from lambda_split.wire.pictures.layout import DeepGeometry

__all__ = ["BlockRunner", "FirstOutput", "Told", "load_blocks"]

Tensor = npt.NDArray[np.float32]

_FLOAT = "tensor(float)"
_TIME_IDS = 6


@dataclass(frozen=True, eq=False)
class Told:
    """What a picture's rows are told besides latents and time.

    Attributes:
        rows: float32 (n, …) by role: ``context``, and what the denoiser takes of ``pooled``,
            ``time_ids`` and ``guidance``.
    """

    rows: Mapping[str, Tensor]

    def row(self, number: int) -> dict[str, Tensor]:
        """One row's, (1, …) each."""
        return {role: tensor[number : number + 1] for role, tensor in self.rows.items()}


@dataclass(frozen=True, eq=False)
class FirstOutput:
    """What the first blocks make of a step.

    Attributes:
        features: float32 (n, input channels, h, w), for the trunk.
        kept: What stays here of each row while the trunk computes: for the last blocks, by role.
    """

    features: Tensor
    kept: tuple[Mapping[str, Tensor], ...]


class BlockRunner:
    """A bundle's first and last blocks; made by :func:`load_blocks`.

    Attributes:
        geometry: Measures of what crosses.
    """

    def __init__(self, first: PictureGraph, last: PictureGraph, geometry: DeepGeometry) -> None:
        self._first = first
        self._last = last
        self.geometry = geometry

    def first(self, latents: Tensor, timestep: float, told: Told) -> FirstOutput:
        """Run the first blocks.

        Args:
            latents: float32 (n, C, H, W), as the solver scales them.
            timestep: What the denoiser is told of the step.
            told: Of the same rows.

        Raises:
            GraphInvalid: the graph failed, or gives NaN, infinity or another shape.
        """
        features: list[Tensor] = []
        kept: list[Mapping[str, Tensor]] = []
        for number, row in enumerate(latents):
            given = told.row(number)
            given |= {"latents": row[None], "timesteps": np.array([timestep], np.float32)}
            found = self._first.run(_taken(given, self._first))
            sent = found.pop("features")
            self._check(self._first, sent, self._inner_shape(row.shape))
            features.append(sent)
            kept.append(_taken({**given, **found}, self._last))
        return FirstOutput(np.concatenate(features), tuple(kept))

    def last(self, features: Tensor, first: FirstOutput, shape: tuple[int, ...]) -> Tensor:
        """Run the last blocks.

        Args:
            features: float32 (n, output channels, h, w), from the trunk.
            first: Of the same step.
            shape: (C, H, W) of the latents.

        Returns:
            float32 (n, C, H, W), the predicted noise of each row.

        Raises:
            GraphInvalid: the graph failed, or gives NaN, infinity or another shape.
        """
        rows: list[Tensor] = []
        for row, kept in zip(features, first.kept, strict=True):
            noise = self._last.run({**kept, "features": row[None]})["noise"]
            self._check(self._last, noise, (1, *shape))
            rows.append(noise)
        return np.concatenate(rows)

    def _inner_shape(self, latents: tuple[int, ...]) -> tuple[int, ...]:
        _, height, width = latents
        inner = (-(-side // self.geometry.reduction) for side in (height, width))
        return (1, self.geometry.input_channels, *inner)

    @staticmethod
    def _check(graph: PictureGraph, tensor: Tensor, shape: tuple[int, ...]) -> None:
        if tensor.shape != shape:
            raise GraphInvalid(graph.graph.file, f"it gives {tensor.shape}, not {shape}")
        if not np.isfinite(tensor).all():
            raise GraphInvalid(graph.graph.file, "it gives NaN or infinity")


def _taken(tensors: Mapping[str, Tensor], graph: PictureGraph) -> dict[str, Tensor]:
    """Those that a graph takes."""
    return {role: tensor for role, tensor in tensors.items() if role in graph.graph.inputs}


def load_blocks(bundle: ImageBundle, settings: RuntimeSettings) -> BlockRunner:
    """Load the blocks of a bundle with the split ``deep``.

    Raises:
        BundleError: the bundle has none, or a graph is missing, corrupt or not what the manifest
            says.
    """
    blocks = bundle.manifest.blocks
    if blocks is None:
        raise ManifestInvalid(str(bundle.path / MANIFEST_NAME), "it has no blocks of the denoiser")
    geometry = DeepGeometry(blocks.input_channels, blocks.output_channels, blocks.reduction)
    channels = bundle.manifest.latents.channels
    between = {"embedding": TensorSpec(_FLOAT, (None, None))}
    between |= {role: _maps(None) for role in blocks.skip_roles}
    first = open_picture_graph(
        bundle,
        blocks.first,
        settings,
        inputs={"latents": _maps(channels), "timesteps": _row(), **_told(bundle)},
        outputs={"features": _maps(blocks.input_channels), **between},
    )
    last = open_picture_graph(
        bundle,
        blocks.last,
        settings,
        inputs={"features": _maps(blocks.output_channels), **between, "context": _context(bundle)},
        outputs={"noise": _maps(channels)},
    )
    return BlockRunner(first, last, geometry)


def _told(bundle: ImageBundle) -> dict[str, TensorSpec]:
    told = bundle.manifest.conditioning
    specs = {"context": _context(bundle)}
    if told.pooled_width is not None:
        specs["pooled"] = TensorSpec(_FLOAT, (None, told.pooled_width), required=False)
    if told.time_ids:
        specs["time_ids"] = TensorSpec(_FLOAT, (None, _TIME_IDS), required=False)
    if told.guidance_embedding is not None:
        specs["guidance"] = TensorSpec(_FLOAT, (None,), required=False)
    return specs


def _context(bundle: ImageBundle) -> TensorSpec:
    shape = (None, None, bundle.manifest.conditioning.width)
    return TensorSpec(_FLOAT, shape, required=False)


def _maps(channels: int | None) -> TensorSpec:
    return TensorSpec(_FLOAT, (None, channels, None, None))


def _row() -> TensorSpec:
    return TensorSpec(_FLOAT, (None,))

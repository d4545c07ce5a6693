"""Latents to pixels: the VAE decoder, on the device."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_runtime.graph_session import RuntimeSettings, TensorSpec
from edge_runtime.pictures.graphs import PictureGraph, open_picture_graph
from lambda_split.errors import GraphInvalid
from lambda_split.image_bundle import ImageBundle, Vae

__all__ = ["Pixels", "VaeDecoder", "load_decoder"]

Tensor = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


class VaeDecoder:
    """A bundle's decoder; made by :func:`load_decoder`."""

    def __init__(self, graph: PictureGraph, vae: Vae) -> None:
        self._graph = graph
        self._vae = vae

    def decode(self, latents: Tensor) -> Pixels:
        """Decode latents, one image after the other, since each takes much memory.

        Args:
            latents: float32 (B, C, h, w), as the solver leaves them.

        Returns:
            uint8 (B, height, width, 3), red, green and blue.

        Raises:
            GraphInvalid: the graph failed, or the latents are not finite.
        """
        return np.concatenate([self._decode_one(image[None]) for image in latents])

    def _decode_one(self, latents: Tensor) -> Pixels:
        scaled = self._vae.decoder_input(latents)
        picture = self._graph.run({"latents": scaled})["picture"]  # (1, 3, height, width)
        if not np.isfinite(picture).all():
            raise GraphInvalid(self._graph.graph.file, "it gives NaN or infinity")
        levels = np.clip(picture / 2 + 0.5, 0.0, 1.0) * 255
        # (1, 3, height, width) -> (1, height, width, 3)
        return np.ascontiguousarray(np.rint(levels).astype(np.uint8).transpose(0, 2, 3, 1))


def load_decoder(bundle: ImageBundle, settings: RuntimeSettings) -> VaeDecoder:
    """Load a bundle's VAE decoder.

    Raises:
        BundleError: the graph is missing, corrupt or not what the manifest says.
    """
    manifest = bundle.manifest
    graph = open_picture_graph(
        bundle,
        manifest.vae.graph,
        settings,
        inputs={
            "latents": TensorSpec("tensor(float)", (None, manifest.latents.channels, None, None))
        },
        outputs={"picture": TensorSpec("tensor(float)", (None, 3, None, None))},
    )
    return VaeDecoder(graph, manifest.vae)

"""Honest devices of a server of pictures: a tiny pipeline, and a picture that is known."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

import numpy as np

from edge_runtime import ImageGenerator, PictureSpec
from edge_runtime.graphs import RuntimeSettings
from lambda_split.errors import LambdaSplitError
from lambda_split.image_bundle import ImageBundle
from lambda_split.wire.messages import PictureHello
from lambda_split.wire.pictures.layout import DenoiserGeometry
from tests.faults.crowd import Devices
from tests.servers import serving

__all__ = ["Painters", "PictureGround", "make_picture_ground", "paints"]

_SPEC = PictureSpec(steps=3, height=32, width=32, seed=7)
_PROMPT = "a red circle"
# Pictures that run together with others are rounded differently: of 255.
_TOLERANCE = 2


@dataclass(frozen=True)
class PictureGround:
    """A pipeline, its bundle, and the picture that comes out where nobody disturbs.

    Attributes:
        model: The pipeline's folder, for ``lambda-split serve``.
        bundle: Exported from it.
        hello: A device's first message, for clients that are made by hand.
        geometry: The denoiser's measures.
        expected: The picture.
    """

    model: str
    bundle: ImageBundle
    hello: PictureHello
    geometry: DenoiserGeometry
    expected: np.ndarray


def make_picture_ground(folder: pathlib.Path) -> PictureGround:
    """Export a tiny pipeline, and make the picture on a server that has nothing else to do."""
    from export import ImageExportSettings, export_image_bundle
    from lambda_split.image_bundle import load_image_bundle
    from tests.tiny_pipelines import save_tiny_pipeline

    model = folder / "pipeline"
    save_tiny_pipeline("sd1", model)
    settings = ImageExportSettings(weights="fp32")
    export_image_bundle(str(model), folder / "pictures", settings)
    bundle = load_image_bundle(folder / "pictures")
    manifest = bundle.manifest
    hello = PictureHello(
        protocol=1,
        fingerprint=manifest.model.fingerprint,
        split="whole",
        formats=("fp32",),
        latents=128,
        context=64,
        steps=8,
    )
    geometry = DenoiserGeometry(
        channels=manifest.latents.channels, context_width=manifest.conditioning.width
    )
    with serving(str(model)) as server:
        expected = _paint(bundle, server.url)
    return PictureGround(str(model), bundle, hello, geometry, expected)


def _paint(bundle: ImageBundle, url: str) -> np.ndarray:
    runtime = RuntimeSettings(threads=1)
    with ImageGenerator.open(bundle, url, format="fp32", runtime=runtime) as painter:
        return painter.generate(_PROMPT, spec=_SPEC).images


def _is_expected(ground: PictureGround, found: np.ndarray) -> bool:
    difference = np.abs(found.astype(np.int16) - ground.expected.astype(np.int16))
    return int(difference.max()) <= _TOLERANCE


def paints(ground: PictureGround, url: str) -> bool:
    """Whether a new session's picture comes out right."""
    try:
        return _is_expected(ground, _paint(ground.bundle, url))
    except LambdaSplitError:
        return False


class Painters(Devices):
    """Devices that make the picture, again and again."""

    def __init__(self, ground: PictureGround, url: str, clients: int) -> None:
        super().__init__(clients)
        self._ground = ground
        self._url = url

    def _live(self, number: int) -> None:
        del number
        while not self._stopping.is_set():
            try:
                found = _paint(self._ground.bundle, self._url)
            except LambdaSplitError as error:
                with self._lock:
                    self.tally.lost.append(f"{type(error).__name__}: {error}")
                continue
            with self._lock:
                self.tally.generations += 1
                if not _is_expected(self._ground, found):
                    self.tally.wrong.append("a picture")

"""What the end-to-end tests share: bundles of tiny models, made once for the whole run."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest

from export import (
    ExportSettings,
    ImageExportSettings,
    QuietProgress,
    export_bundle,
    export_image_bundle,
)
from lambda_split.bundle import Bundle, WeightFormat, load_bundle
from lambda_split.image_bundle import ImageBundle, load_image_bundle
from lambda_split.split import Split
from tests.tiny_models import save_tiny

MakeBundle = Callable[..., Bundle]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    """The folder of a tiny variant's checkpoint."""
    made: dict[str, pathlib.Path] = {}

    def make(variant: str) -> pathlib.Path:
        if variant not in made:
            made[variant] = tmp_path_factory.mktemp(variant)
            save_tiny(variant, made[variant])
        return made[variant]

    return make


@pytest.fixture(scope="session")
def bundle(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[[str], pathlib.Path]
) -> MakeBundle:
    """A bundle of a tiny variant or of the demo model, exported once for each setting."""
    made: dict[tuple[object, ...], Bundle] = {}

    def make(
        variant: str, head_layers: int = 1, tail_layers: int = 1, weights: WeightFormat = "fp32"
    ) -> Bundle:
        key = (variant, head_layers, tail_layers, weights)
        if key not in made:
            model = variant if variant == "demo" else str(checkpoint(variant))
            out = tmp_path_factory.mktemp("bundles") / "bundle"
            settings = ExportSettings(split=Split(head_layers, tail_layers), weights=weights)
            export_bundle(model, out, settings, progress=QuietProgress())
            made[key] = load_bundle(out)
        return made[key]

    return make


@pytest.fixture(scope="session")
def demo_pictures(tmp_path_factory: pytest.TempPathFactory) -> ImageBundle:
    """A bundle of the demo image model."""
    out = tmp_path_factory.mktemp("pictures") / "bundle"
    settings = ImageExportSettings(weights="fp32")
    export_image_bundle("demo-image", out, settings, progress=QuietProgress())
    return load_image_bundle(out)

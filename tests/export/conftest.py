from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest
import torch

from export import ExportSettings, ImageExportSettings, export_bundle, export_image_bundle
from lambda_split.bundle import Bundle, load_bundle
from lambda_split.image_bundle import ImageBundle, load_image_bundle
from lambda_split.split import Split
from tests.tiny_models import save_tiny
from tests.tiny_pipelines import save_tiny_pipeline

torch.set_num_threads(1)

Export = Callable[..., Bundle]
ExportImages = Callable[..., ImageBundle]


def _each_once(
    save: Callable[[str, pathlib.Path], object], folder: str, temporary: pytest.TempPathFactory
) -> Callable[[str], pathlib.Path]:
    made: dict[str, pathlib.Path] = {}

    def make(name: str) -> pathlib.Path:
        if name not in made:
            made[name] = temporary.mktemp(name) / folder
            save(name, made[name])
        return made[name]

    return make


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    """Saves each tiny variant once in a run."""
    return _each_once(save_tiny, "tiny-model", tmp_path_factory)


@pytest.fixture(scope="session")
def export(checkpoint_folder, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Exports each combination once in a run, and loads it as a device does."""
    made: dict[tuple[object, ...], Bundle] = {}

    def make(name: str, *, weights="fp32", attention="auto", split=(1, 1)) -> Bundle:
        key = (name, weights, attention, split)
        if key not in made:
            out = tmp_path_factory.mktemp("bundles") / "bundle"
            settings = ExportSettings(Split(*split), weights=weights, attention=attention)
            export_bundle(str(checkpoint_folder(name)), out, settings)
            made[key] = load_bundle(out)
        return made[key]

    return make


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    """Saves each tiny pipeline once in a run."""
    return _each_once(save_tiny_pipeline, "tiny-pipeline", tmp_path_factory)


@pytest.fixture(scope="session")
def export_images(pipeline_folder, tmp_path_factory: pytest.TempPathFactory) -> ExportImages:
    """Exports each combination once in a run, and loads it as a device does."""
    made: dict[tuple[object, ...], ImageBundle] = {}

    def make(name: str, weights: str = "fp32", **settings: object) -> ImageBundle:
        key = (name, weights, *sorted(settings.items()))
        if key not in made:
            out = tmp_path_factory.mktemp("bundles") / "pictures"
            chosen = ImageExportSettings(weights=weights, **{"calibration_steps": 2, **settings})
            export_image_bundle(str(pipeline_folder(name)), out, chosen)
            made[key] = load_image_bundle(out)
        return made[key]

    return make

"""A real Ray cluster on this machine, and a tiny model's checkpoint and bundle."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

from cloud.replicas.cluster import ClusterSettings, connected, keep_local
from cloud.settings import EngineSettings, ModelSettings, ServeSettings
from export import ExportSettings, QuietProgress, export_bundle
from lambda_split.bundle import Bundle, load_bundle
from lambda_split.split import Split
from tests.tiny_models import save_tiny

keep_local()  # before any test module imports ray


@dataclass(frozen=True)
class TinyModel:
    folder: pathlib.Path
    bundle: Bundle

    def settings(self, *, folder: pathlib.Path | None = None, **engine) -> ServeSettings:
        return ServeSettings(
            model=ModelSettings(name=str(folder or self.folder), device="cpu", threads=1),
            engine=EngineSettings(**({"max_sessions": 8} | engine)),
        )


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    folder = tmp_path_factory.mktemp("replicas")
    save_tiny("llama", folder / "llama")
    settings = ExportSettings(split=Split(1, 1), weights="fp32")
    export_bundle(str(folder / "llama"), folder / "bundle", settings, progress=QuietProgress())
    return TinyModel(folder / "llama", load_bundle(folder / "bundle"))


def ray_processes(folder: pathlib.Path) -> list[psutil.Process]:
    """Every process that has the cluster's folder in its command line or among its open files."""
    found = []
    for process in psutil.process_iter():
        try:
            mentions = process.cmdline() + [file.path for file in process.open_files()]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if process.pid != os.getpid() and any(str(folder) in text for text in mentions):
            found.append(process)
    return found


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[pathlib.Path]:
    """Started here and stopped here; its folder."""
    # Not pytest's folder: the paths of Ray's sockets would be too long.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ls-"))
    environment = dict(os.environ)
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        with connected(ClusterSettings(cpus=4, folder=folder)):
            yield folder
        _, left = psutil.wait_procs(ray_processes(folder), timeout=60)
        assert not left, f"left running: {left}"
    finally:
        for process in ray_processes(folder):
            process.kill()
        os.environ.clear()
        os.environ.update(environment)
        shutil.rmtree(folder, ignore_errors=True)

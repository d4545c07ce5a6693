"""From what a user calls a model to its files: a local folder or a repository on the Hub."""

from __future__ import annotations

import pathlib

from lambda_split.errors import CheckpointNotFound
from lambda_split.partition.files import LocalFolder, ModelFiles
from lambda_split.partition.hub import HubRepository

__all__ = ["DEMO_IMAGE", "MODEL_INDEX", "is_pipeline", "open_files", "open_pipeline_files"]

MODEL_INDEX = "model_index.json"  # what makes a folder a text-to-image pipeline
DEMO_IMAGE = "demo-image"
_DEMO_FOLDER = pathlib.Path(__file__).parents[1] / "demo_models" / "image"


def open_files(model: str, revision: str | None, probe: str) -> ModelFiles:
    """Find a model's files.

    Args:
        model: A local folder or a Hugging Face id.
        revision: Branch, tag or commit, for a Hub id.
        probe: A file that a repository on the Hub must have; a folder is not searched for it.

    Raises:
        CheckpointNotFound: there is no such folder, and the Hub has or gives no such model.
    """
    if not model:
        raise CheckpointNotFound(model, "the name is empty")
    try:
        path = pathlib.Path(model).expanduser()
        local = path.exists()
    except (OSError, RuntimeError) as error:  # a name too long; a home folder of nobody
        raise CheckpointNotFound(model, str(error)) from error
    if local or path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        return LocalFolder.open(path)
    return HubRepository.open(model, revision, probe)


def open_pipeline_files(model: str, revision: str | None) -> ModelFiles:
    """Find the files of a text-to-image pipeline; arguments and errors as :func:`open_files`."""
    if model == DEMO_IMAGE:
        return LocalFolder(DEMO_IMAGE, LocalFolder.open(_DEMO_FOLDER).path)
    return open_files(model, revision, MODEL_INDEX)


def is_pipeline(model: str, revision: str | None = None) -> bool:
    """Whether a model is a text-to-image pipeline; never raises for what it is not.

    Args:
        model: A local folder, a Hugging Face id, or ``demo-image`` for the shipped one.
        revision: Branch, tag or commit, for a Hub id.
    """
    if model == DEMO_IMAGE:
        return True
    try:
        if "/" not in model and not pathlib.Path(model).is_dir():
            return False  # pipelines on the Hub have an owner: no need to ask
        return open_files(model, revision, MODEL_INDEX).find(MODEL_INDEX) is not None
    except (CheckpointNotFound, OSError):
        return False  # whoever opens it as something else will say what is wrong

"""From what a user calls a model to its files: a local folder or a repository on the Hub."""

from __future__ import annotations

import pathlib

from lambda_split.errors import CheckpointNotFound
from lambda_split.partition.files import LocalFolder, ModelFiles
from lambda_split.partition.hub import HubRepository

__all__ = ["open_files"]


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

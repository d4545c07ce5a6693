"""The files of a checkpoint, wherever they lie, and reading its JSON ones without trust."""

from __future__ import annotations

import json
import pathlib
from dataclasses import dataclass
from typing import Protocol

from lambda_split.errors import CheckpointInvalid, CheckpointNotFound

__all__ = ["LocalFolder", "ModelFiles", "read_bounded", "read_json_object"]


class ModelFiles(Protocol):
    """Where a model's files come from.

    Attributes:
        id: What messages and manifests call the model; never a local path.
        revision: The Hub commit, where there is one.
    """

    @property
    def id(self) -> str: ...  # noqa: D102 - see the class

    @property
    def revision(self) -> str | None: ...  # noqa: D102 - see the class

    def find(self, name: str) -> pathlib.Path | None:
        """A local path to the file, fetched if need be; None if the model has no such file."""
        ...

    def get(self, name: str) -> pathlib.Path:
        """As ``find``, for a file that must be there.

        Raises:
            CheckpointInvalid: the model has no such file.
            CheckpointNotFound: it may have one, but there is no way to it.
        """
        ...

    def has(self, name: str) -> bool:
        """Whether the model has such a file; fetches nothing."""
        ...


@dataclass(frozen=True)
class LocalFolder:
    """A model in a folder of this machine."""

    id: str
    path: pathlib.Path
    revision: str | None = None

    @staticmethod
    def open(path: pathlib.Path) -> LocalFolder:
        """Check that the folder is there; its name becomes the id.

        Raises:
            CheckpointNotFound: it is not a folder.
        """
        if not path.is_dir():
            reason = "it is a file: give the folder" if path.exists() else "no such folder"
            raise CheckpointNotFound(str(path), reason)
        return LocalFolder(path.resolve().name, path)

    def find(self, name: str) -> pathlib.Path | None:
        """See :meth:`ModelFiles.find`."""
        path = self.path / name
        return path if path.is_file() else None

    def get(self, name: str) -> pathlib.Path:
        """See :meth:`ModelFiles.get`."""
        path = self.find(name)
        if path is None:
            raise CheckpointInvalid(name, f"it is not in {self.path}")
        return path

    def has(self, name: str) -> bool:
        """See :meth:`ModelFiles.has`."""
        return self.find(name) is not None


def read_bounded(path: pathlib.Path, *, max_bytes: int) -> bytes:
    """The whole content of a file that must not be larger than ``max_bytes``.

    Raises:
        CheckpointInvalid: it is too large or unreadable.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except OSError as error:
        raise CheckpointInvalid(str(path), error.strerror or "it cannot be read") from error
    if len(raw) > max_bytes:
        raise CheckpointInvalid(str(path), f"it is larger than {max_bytes} bytes")
    return raw


def read_json_object(path: pathlib.Path, *, max_bytes: int) -> dict[str, object]:
    """Parse a JSON file that must hold an object.

    Raises:
        CheckpointInvalid: it is too large, unreadable, not JSON, or not an object.
    """
    raw = read_bounded(path, max_bytes=max_bytes)
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CheckpointInvalid(str(path), f"it is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointInvalid(str(path), "it is not a JSON object")
    return value

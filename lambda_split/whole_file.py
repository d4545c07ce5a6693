"""Files that are whole or as they were, whatever comes in between."""

from __future__ import annotations

import os
import pathlib

from lambda_split.errors import OutputNotWritable

__all__ = ["write_whole"]


def write_whole(path: pathlib.Path, content: bytes) -> None:
    """Write a file: another one first, then renamed, so that it is whole or as it was.

    Nothing else is left behind, also after a Ctrl-C.

    Raises:
        OutputNotWritable: the disk is full, or there is no permission.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputNotWritable(str(path), error.strerror or str(error)) from error

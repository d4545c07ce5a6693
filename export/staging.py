"""Write a folder as a whole or not at all.

Everything is written into a hidden folder beside the wanted one, made durable, and then renamed.
A failure removes it. A killed process cannot: what it leaves has no manifest, so nothing can load
it, and a name that ends in ``.partial``, by which the next export to the same place finds it and,
if no living process holds its lock, removes it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lambda_split.bundle import MANIFEST_NAME
from lambda_split.errors import OutputExists, OutputNotWritable

__all__ = ["staged_folder", "writing"]

_PARTIAL = ".partial"
_REPLACED = ".replaced"
_STALE_AFTER_S = 60.0  # a folder this young may be another export's that has not locked it yet


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Within, a failed write (disk full, no permission …) is raised as ``OutputNotWritable``."""
    try:
        yield
    except OSError as error:
        raise OutputNotWritable(str(out), error.strerror or str(error)) from error


@contextmanager
def staged_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write into that becomes ``out`` when the block ends without an error.

    Missing parents of ``out`` are made. An existing bundle is moved aside, replaced and then
    deleted; if the process dies between the two renames, it is still beside ``out``, under a hidden
    name that ends in ``.replaced``.

    Args:
        out: The wanted folder.
        overwrite: Replace an existing bundle, or an empty folder.

    Raises:
        OutputExists: it exists, and ``overwrite`` is not set.
        OutputNotWritable: it exists and is no bundle, or writing failed.
    """
    _check_out(out, overwrite=overwrite)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(out)
        folder = Path(tempfile.mkdtemp(prefix=_prefix(out), suffix=_PARTIAL, dir=out.parent))
        folder.chmod(0o777 & ~_umask())  # mkdtemp's folders are for their owner only
        lock = _lock(folder)
    try:
        yield folder
        with writing(out):
            _sync_folder(folder)
            _check_out(out, overwrite=overwrite)  # someone may have made it meanwhile
            _publish(folder, out)
    finally:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def _prefix(out: Path) -> str:
    return f".{out.name}."


def _check_out(out: Path, *, overwrite: bool) -> None:
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise OutputExists(str(out))
    # Never delete what export did not write, for example a home folder given by mistake.
    if not out.is_dir() or out.is_symlink():
        raise OutputNotWritable(str(out), "it is not a folder")
    if not (out / MANIFEST_NAME).is_file() and any(out.iterdir()):
        raise OutputNotWritable(str(out), "it is no bundle, so --overwrite does not replace it")


def _publish(folder: Path, out: Path) -> None:
    if not out.exists():
        folder.rename(out)
        _sync_folder(out.parent)
        return
    # A folder cannot be renamed over a full one; the old one steps aside first.
    aside = folder.with_suffix(_REPLACED)
    out.rename(aside)
    try:
        folder.rename(out)
    except OSError:
        aside.rename(out)
        raise
    _sync_folder(out.parent)
    _remove_bundle(aside)


def _remove_stale(out: Path) -> None:
    for folder in out.parent.iterdir():
        if not folder.name.startswith(_prefix(out)) or folder.is_symlink():
            continue
        partial = folder.name.endswith(_PARTIAL)
        # What was moved aside is the only copy unless its successor is there.
        replaced = folder.name.endswith(_REPLACED) and out.exists()
        if not (partial or replaced) or not folder.is_dir():
            continue
        if time.time() - folder.stat().st_mtime < _STALE_AFTER_S:
            continue
        lock = _lock(folder)
        if lock is not None:
            _remove_bundle(folder)
            os.close(lock)


def _remove_bundle(folder: Path) -> None:
    # The manifest goes first: from then on nothing can load what is left, whatever happens.
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


if sys.platform == "win32":

    def _lock(folder: Path) -> int | None:
        # Folders cannot be locked here, so stale ones stay until someone deletes them.
        del folder
        return None

    def _sync_folder(folder: Path) -> None:
        del folder  # nor can they be synchronized

else:
    import fcntl

    def _lock(folder: Path) -> int | None:
        """An exclusive lock that ends with the process; None if another process has it."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def _sync_folder(folder: Path) -> None:
        """Make the names in a folder durable."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

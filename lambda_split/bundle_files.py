"""What every kind of bundle does alike: one manifest, and files that are what it says they are.

A manifest comes from outside, and so does the folder: each path must stay inside, each file must
have the listed size and sha256, and the manifest itself is bounded before it is parsed.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from lambda_split.digests import Sha256
from lambda_split.errors import (
    BundleFileAltered,
    BundleFileMissing,
    BundleFileUnreadable,
    BundleNotFound,
    ManifestInvalid,
    PathOutsideBundle,
    SchemaUnsupported,
)

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA",
    "Count",
    "FileEntry",
    "RawManifest",
    "Size",
    "check_files",
    "check_named",
    "describe_files",
    "read_raw_manifest",
    "write_manifest_file",
]

MANIFEST_NAME = "manifest.json"
SCHEMA = 1
_MAX_MANIFEST_BYTES = 4 * 1024 * 1024  # bounds the read; real manifests have a few kilobytes
_HASH_CHUNK_BYTES = 1 << 20

Count = Annotated[int, Meta(ge=0, le=1 << 40)]
Size = Annotated[int, Meta(ge=1, le=1 << 31)]


class FileEntry(msgspec.Struct, frozen=True):
    """Size in bytes and sha256 of one file."""

    size: Count
    sha256: Sha256


class _Beginning(msgspec.Struct):
    schema: int
    kind: object = ""  # of any type: whoever reads the rest says what is wrong with it


class RawManifest(msgspec.Struct, frozen=True):
    """A manifest of a schema that this version knows, not parsed further.

    Attributes:
        path: The file, for messages.
        kind: ``causal-lm``, ``text-to-image`` …, or what else stands there.
        content: The file's bytes.
    """

    path: pathlib.Path
    kind: str
    content: bytes


def read_raw_manifest(folder: pathlib.Path) -> RawManifest:
    """Read ``manifest.json`` as far as every kind of bundle has it in common.

    Raises:
        BundleNotFound: there is none.
        ManifestInvalid: it is too large, unreadable, or no JSON object with a schema.
        SchemaUnsupported: it is of another schema version.
    """
    path = folder / MANIFEST_NAME
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleNotFound(str(folder)) from error
    except OSError as error:
        raise ManifestInvalid(str(path), error.strerror or "it cannot be read") from error
    if len(content) > _MAX_MANIFEST_BYTES:
        raise ManifestInvalid(str(path), f"it is larger than {_MAX_MANIFEST_BYTES} bytes")
    try:
        # The schema first: a newer manifest may have another shape altogether.
        beginning = msgspec.json.decode(content, type=_Beginning)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestInvalid(str(path), str(error)) from error
    if beginning.schema != SCHEMA:
        raise SchemaUnsupported(beginning.schema, SCHEMA)
    return RawManifest(path, str(beginning.kind), content)


def check_named(path: pathlib.Path, named: Iterable[str], files: Mapping[str, FileEntry]) -> None:
    """Check the paths that a manifest lists and those that it uses.

    Args:
        path: The manifest, for messages.
        named: Files that it uses.
        files: Files that it lists.

    Raises:
        PathOutsideBundle: one of them leaves the folder.
        ManifestInvalid: a used one is not listed.
    """
    used = list(named)
    for name in [*files, *used]:
        _check_inside(name)
    for name in used:
        if name not in files:
            raise ManifestInvalid(str(path), f"{name} is used but not listed in 'files'")


def _check_inside(name: str) -> None:
    # Manifests are POSIX-style on every system; a backslash or drive would escape on Windows.
    pure = pathlib.PurePosixPath(name)
    if (
        not name
        or name == "."
        or pure.is_absolute()
        or ".." in pure.parts
        or "\\" in name
        or ":" in name
        or "\0" in name
        or pure.as_posix() != name
    ):
        raise PathOutsideBundle(name)


def _sha256(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_files(
    folder: pathlib.Path, files: Mapping[str, FileEntry], *, check_contents: bool
) -> None:
    """Compare the files with what a manifest lists.

    Args:
        folder: The bundle's folder.
        files: What the manifest lists; the names were checked.
        check_contents: Compare each sha256, too (reads every byte once).

    Raises:
        PathOutsideBundle: a link leads out of the folder.
        BundleFileMissing: a file is absent.
        BundleFileUnreadable: a file cannot be read.
        BundleFileAltered: a file has another size or content.
    """
    for name, entry in files.items():
        _check_file(folder, name, entry, contents=check_contents)


def _check_file(folder: pathlib.Path, name: str, entry: FileEntry, *, contents: bool) -> None:
    path = folder / name
    try:
        # A symbolic link inside the folder may still point out of it.
        resolved = path.resolve(strict=True)
        size = resolved.stat().st_size
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise BundleFileMissing(name) from error
    if not resolved.is_relative_to(folder.resolve()):
        raise PathOutsideBundle(name)
    if not resolved.is_file():
        raise BundleFileMissing(name)
    if size != entry.size:
        raise BundleFileAltered(name, "its size", str(entry.size), str(size))
    if contents:
        try:
            found = _sha256(resolved)
        except OSError as error:
            raise BundleFileUnreadable(name, error.strerror or "it cannot be read") from error
        if found != entry.sha256:
            raise BundleFileAltered(name, "its sha256", entry.sha256[:12], found[:12])


def describe_files(folder: pathlib.Path, names: Iterable[str]) -> dict[str, FileEntry]:
    """Size and sha256 of files below ``folder``, for a manifest's ``files``."""
    return {
        name: FileEntry((folder / name).stat().st_size, _sha256(folder / name)) for name in names
    }


def write_manifest_file(folder: pathlib.Path, manifest: msgspec.Struct) -> None:
    """Write ``manifest.json``: a temporary file first, then renamed, so it is whole or absent."""
    temporary = folder / f".{MANIFEST_NAME}.tmp"
    raw = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    with temporary.open("wb") as file:
        file.write(raw + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST_NAME)

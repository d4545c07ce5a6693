"""``results.json``: what an audit found of texts, of pictures, or of both."""

from __future__ import annotations

import pathlib

import msgspec

from audit.picture_results import PictureResults
from audit.results import SCHEMA, TextAudit
from lambda_split.errors import UsageError
from lambda_split.whole_file import write_whole

__all__ = ["AuditResults", "read_results", "write_results"]


class AuditResults(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found; each part has its own version and producer, so that parts can be joined.

    Attributes:
        text: Of a language model; None where none was audited.
        pictures: Of a text-to-image pipeline; None where none was audited.
    """

    text: TextAudit | None = None
    pictures: PictureResults | None = None


class _Part(msgspec.Struct):
    schema: int


class _Parts(msgspec.Struct):
    text: _Part | None = None
    pictures: _Part | None = None


def write_results(path: pathlib.Path, results: AuditResults) -> None:
    """Write JSON, whole or not at all.

    Raises:
        OutputNotWritable: the disk is full, or there is no permission.
    """
    write_whole(path, msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")


def read_results(path: pathlib.Path) -> AuditResults:
    """Read them again.

    Raises:
        UsageError: there is no such file, or it is not one of this version.
    """
    try:
        content = path.read_bytes()
        parts = msgspec.json.decode(content, type=_Parts)
        found = [part.schema for part in (parts.text, parts.pictures) if part is not None]
        if any(schema != SCHEMA for schema in found):
            raise UsageError(f"{path} is of version {max(found)}, this program reads {SCHEMA}")
        if not found:
            raise UsageError(f"{path} holds no results of an audit")
        return msgspec.json.decode(content, type=AuditResults)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} holds no results of an audit: {error}") from error

"""PNG files (ISO/IEC 15948), written without an imaging library.

Such a library would be the largest of all that a device installs, for a header, a filter byte in
front of each row and what zlib does.
"""

from __future__ import annotations

import os
import pathlib
import struct
import zlib
from collections.abc import Mapping

import numpy as np

from edge_runtime.pictures.decoder import Pixels
from lambda_split.errors import OutputNotWritable, UsageError
from lambda_split.whole_file import write_whole

__all__ = ["encode_png", "write_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TRUE_COLOUR = 2
_UP = 2  # the filter of all rows: each value less the one above it
_LONGEST_KEYWORD = 79


def encode_png(picture: Pixels, texts: Mapping[str, str] | None = None) -> bytes:
    """A picture as a PNG file.

    Args:
        picture: uint8 (height, width, 3), red, green and blue.
        texts: Keywords and what to say of them, as ``iTXt`` chunks.

    Raises:
        UsageError: no picture of that shape, or a keyword that PNG does not allow.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise UsageError(
            f"a picture is uint8 (height, width, 3), not {picture.dtype} {picture.shape}"
        )
    height, width, _ = picture.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _TRUE_COLOUR, 0, 0, 0)
    rows = picture.reshape(height, width * 3)  # (height, width, 3) -> (height, width * 3)
    filtered = np.empty((height, 1 + width * 3), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])  # modulo 256
    chunks = [_chunk(b"IHDR", header)]
    chunks += [_text(keyword, text) for keyword, text in (texts or {}).items()]
    chunks += [_chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6)), _chunk(b"IEND", b"")]
    return _SIGNATURE + b"".join(chunks)


def write_png(
    path: str | os.PathLike[str], picture: Pixels, texts: Mapping[str, str] | None = None
) -> None:
    """Write a picture; arguments as for :func:`encode_png`.

    Raises:
        UsageError: as there.
        OutputNotWritable: the file cannot be written.
    """
    data = encode_png(picture, texts)
    try:
        target = pathlib.Path(path)
        if target.exists() and not target.is_file():  # a pipe or a terminal cannot be replaced
            target.write_bytes(data)
        else:
            write_whole(target, data)
    except (OSError, ValueError) as error:
        raise OutputNotWritable(os.fspath(path), str(error)) from error


def _text(keyword: str, text: str) -> bytes:
    printable = keyword.isascii() and keyword.isprintable() and " ".join(keyword.split()) == keyword
    if not (printable and 0 < len(keyword) <= _LONGEST_KEYWORD):
        raise UsageError(f"{keyword!r} cannot be a keyword in a PNG file")
    # Not compressed; no language, no translated keyword.
    return _chunk(b"iTXt", keyword.encode() + b"\0\0\0\0\0" + text.encode("utf-8", "replace"))


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

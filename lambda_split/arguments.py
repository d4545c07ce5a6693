"""What the command lines of all parts have in common: numbers, splits, and files with a token."""

from __future__ import annotations

import argparse
import logging
import os
import pathlib
import re
import stat

from lambda_split.errors import UsageError
from lambda_split.split import Split

__all__ = ["check_png_name", "non_negative", "positive", "read_token_file", "split_pair"]

_logger = logging.getLogger(__name__)
_MAX_TOKEN_BYTES = 4096


def positive(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    return _at_least(1, text)


def non_negative(text: str) -> int:
    """An argparse type: a whole number of at least 0."""
    return _at_least(0, text)


def split_pair(text: str) -> Split:
    """An argparse type: ``H,T``, layers of the head and of the tail."""
    head, comma, tail = text.partition(",")
    if not comma:
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers of layers, like 1,1")
    return Split(non_negative(head), non_negative(tail))


def check_png_name(path: pathlib.Path) -> None:
    """Pictures are PNG files, whatever they are called: so they should be called that.

    Raises:
        UsageError: the name does not end with ``.png``.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"--out {path}: pictures are PNG files, give a name that ends with .png")


def _at_least(lowest: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
    if value < lowest:
        raise argparse.ArgumentTypeError(f"{value} is below {lowest}")
    return value


def read_token_file(path: str | os.PathLike[str], option: str = "--token-file") -> str:
    """Read a device's bearer token: the file's only line. Warns where others could read it too.

    Args:
        path: The file.
        option: How it was given on the command line, for errors.

    Raises:
        UsageError: it cannot be read, or holds nothing that fits into a header.
    """
    try:
        with pathlib.Path(path).open("rb") as file:
            data = file.read(_MAX_TOKEN_BYTES + 1)
            others = os.fstat(file.fileno()).st_mode & (stat.S_IRGRP | stat.S_IROTH)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{option} {path}: {reason}") from error
    if others and os.name == "posix":
        _logger.warning("%s can be read by other users of this machine", path)
    token = data.strip()
    if re.search(rb"\ssha256:[0-9a-f]{64}", token):
        raise UsageError(
            f"{option} {path}: this is a server's file, which has hashes of tokens; a device needs "
            "the token itself, which 'lambda-split token NAME' printed when it was made"
        )
    if not token or len(data) > _MAX_TOKEN_BYTES or not all(0x21 <= b <= 0x7E for b in token):
        raise UsageError(
            f"{option} {path}: it must hold one token of printable ASCII without spaces, at "
            f"most {_MAX_TOKEN_BYTES} bytes"
        )
    return token.decode("ascii")

"""Make a token for a device.

The server's file (--add-to) gets a line with the token's hash, the device the token itself: in a
file (--out), or on stdout. The server never holds it, and nobody can read it back: who loses a
token gets another. To take one back, add the word 'revoked' to its line, or delete the line, and
send the server SIGHUP; a new one counts after SIGHUP as well.

Try:
  lambda-split token alice --add-to tokens --out alice.token
  lambda-split serve MODEL --token-file tokens
  lambda-split chat --bundle ./bundle --url wss://HOST:8765 --token-file alice.token
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import sys
import tempfile

from cloud.tokens import NAME, Grant, digest_of, new_token, parse_tokens, read_text
from lambda_split.arguments import positive, read_token_file
from lambda_split.errors import UsageError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "name",
        metavar="NAME",
        help="whose token it is, for the server's log: letters, digits, '.', '_', '@', '-'",
    )
    parser.add_argument(
        "--add-to",
        type=pathlib.Path,
        required=True,
        metavar="FILE",
        help="the server's token file; made where there is none",
    )
    parser.add_argument(
        "--max-sessions",
        type=positive,
        metavar="N",
        help="the most sessions with this token at a time (default: as many as the server has)",
    )
    token = parser.add_mutually_exclusive_group()
    token.add_argument(
        "--out",
        type=pathlib.Path,
        metavar="FILE",
        help="write the token there, readable by you only (default: print it)",
    )
    token.add_argument(
        "--from",
        dest="existing",
        type=pathlib.Path,
        metavar="FILE",
        help="take the token in this file, which devices already have, instead of a new one",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        UsageError: a file cannot be read or written, or the name is taken or malformed.
        TokenFileInvalid: the server's file has a malformed line.
    """
    token = new_token() if args.existing is None else read_token_file(args.existing, "--from")
    grant = Grant(args.name, digest_of(token), args.max_sessions)
    text = _with_line(args.add_to, grant)
    if args.out is not None:
        _write_new(args.out, token + "\n")
    try:
        _replace(args.add_to, text)
    except UsageError:
        if args.out is not None:  # a token that no server knows only confuses
            args.out.unlink(missing_ok=True)
        raise
    if args.out is None and args.existing is None:
        sys.stdout.write(token + "\n")
    sys.stderr.write(f"added {grant.name} to {args.add_to}: SIGHUP tells a running server\n")
    return 0


def _with_line(path: pathlib.Path, grant: Grant) -> str:
    """The server's file with one line more, checked as the server will check it."""
    if not NAME.fullmatch(grant.name):
        raise UsageError("a name has at most 64 letters, digits, '.', '_', '@' or '-'")
    before = read_text(path) if path.exists() else ""
    names = {known.name for known in parse_tokens(before, str(path))}
    if grant.name in names:
        raise UsageError(f"{path} has a token of {grant.name} already: choose another name")
    text = before + ("" if before.endswith("\n") or not before else "\n") + grant.line() + "\n"
    parse_tokens(text, str(path))
    return text


def _write_new(path: pathlib.Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  # the descriptor carries the mode
            file.write(text)
    except (OSError, ValueError) as error:
        raise UsageError(f"--out {path}: {_reason(error)}") from error


def _replace(path: pathlib.Path, text: str) -> None:
    """Put a file in another's place in one step, so that a server never reads half of it."""
    try:
        # Through a symbolic link, not over it.
        target = path.resolve()
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        new = pathlib.Path(name)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  # as above
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            _keep_owner(target, new)
            new.replace(target)
        finally:
            new.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise UsageError(f"--add-to {path}: {_reason(error)}") from error


def _keep_owner(old: pathlib.Path, new: pathlib.Path) -> None:
    """A server under a user of its own must still be able to read the file."""
    with contextlib.suppress(OSError):  # none yet, or not ours to give away
        status = old.stat()
        new.chmod(status.st_mode & 0o640)
        if os.name == "posix":
            os.chown(new, status.st_uid, status.st_gid)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)

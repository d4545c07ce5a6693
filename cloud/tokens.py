"""Who may use the server: bearer tokens, of which it keeps hashes only.

The token file has one line for each token, ``NAME sha256:HEX [max-sessions=N] [revoked]``; blank
lines and lines that begin with ``#`` count for nothing. ``lambda-split token`` writes such lines.

A token is 256 random bits, so the hash is a plain SHA-256: a slow, salted one protects what people
make up, which can be guessed. Here nobody can guess, and a slow hash would let anyone who sends
wrong tokens keep the server busy before it knows them.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import pathlib
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lambda_split.counting import counted
from lambda_split.errors import TokenFileInvalid, UsageError

__all__ = [
    "Grant",
    "TokenStore",
    "bearer_of",
    "digest_of",
    "new_token",
    "parse_tokens",
    "read_text",
]

_logger = logging.getLogger(__name__)
MAX_FILE_BYTES = 1 << 20
MAX_LINES = 8192
MAX_TOKENS = 4096  # each connection is compared with all of them
_SCHEME = "bearer "
_PREFIX = "lst_"  # so that scanners for leaked secrets, and people, see what it is
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MAX_SESSIONS = re.compile(r"max-sessions=([1-9][0-9]{0,5})")


@dataclass(frozen=True)
class Grant:
    """What a token allows.

    Attributes:
        name: Whose token it is, for logs; unique in its file.
        digest: SHA-256 of the token; not shown.
        max_sessions: The most sessions at a time; None leaves it to the server's own limit.
        revoked: It allows nothing any more, and its device is told so.
    """

    name: str
    digest: bytes
    max_sessions: int | None = None
    revoked: bool = False

    def __repr__(self) -> str:
        return f"Grant(name={self.name!r})"  # the digest has no business in a traceback

    def line(self) -> str:
        """Its line in a token file, without the end of line."""
        words = [self.name, f"sha256:{self.digest.hex()}"]
        words += [f"max-sessions={self.max_sessions}"] if self.max_sessions is not None else []
        words += ["revoked"] if self.revoked else []
        return " ".join(words)


def new_token() -> str:
    """A fresh token: 256 random bits as printable ASCII."""
    return _PREFIX + secrets.token_urlsafe(32)


def digest_of(token: str) -> bytes:
    """What the server keeps of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def bearer_of(authorization: str) -> str | None:
    """The token in an ``Authorization`` header's value, or None where it holds no bearer token."""
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return authorization[len(_SCHEME) :].strip() or None


class TokenStore:
    """The tokens of a file, read again on demand.

    Args:
        path: The token file.

    Raises:
        UsageError: it cannot be read, or is too large.
        TokenFileInvalid: a line is malformed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = pathlib.Path(path)
        self._grants: tuple[Grant, ...] = ()
        self._watchers: list[Callable[[], None]] = []
        self.reload()

    def reload(self) -> None:
        """Read the file again; where that fails, what was known before stays in force.

        A server that runs ends the sessions of tokens that are gone or revoked: call this in its
        event loop's thread.

        Raises:
            UsageError: it cannot be read, or is too large.
            TokenFileInvalid: a line is malformed.
        """
        self._grants = parse_tokens(read_text(self._path), str(self._path))
        _logger.info("%s in %s", counted(len(self._grants), "token"), self._path)
        for watcher in self._watchers:
            watcher()

    @contextlib.contextmanager
    def watched(self, watcher: Callable[[], None]) -> Iterator[None]:
        """Inside a ``with`` block, call something after each reload, in the same thread."""
        self._watchers.append(watcher)
        try:
            yield
        finally:
            self._watchers.remove(watcher)

    def grant(self, authorization: str) -> Grant | None:
        """The grant of a request, revoked ones included, or None where its token is not known.

        Args:
            authorization: The ``Authorization`` header's value, ``""`` where there is none.
        """
        token = bearer_of(authorization)
        return None if token is None else self._find(digest_of(token))

    def current(self, grant: Grant) -> Grant | None:
        """What an earlier grant's token allows now, or None where its line is gone."""
        return self._find(grant.digest)

    def _find(self, digest: bytes) -> Grant | None:
        # All are looked at, each in constant time: how long it takes tells nothing.
        found = None
        for grant in self._grants:
            if hmac.compare_digest(grant.digest, digest):
                found = grant
        return found


def parse_tokens(text: str, path: str) -> tuple[Grant, ...]:
    """The grants in a token file's text.

    Args:
        text: The file's content.
        path: Named in errors.

    Raises:
        TokenFileInvalid: a line is malformed, or repeats a name or a token; or there are too many.
    """
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        raise TokenFileInvalid(f"more than {MAX_LINES} lines", path, MAX_LINES + 1)
    grants: list[Grant] = []
    names: set[str] = set()
    digests: set[bytes] = set()
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(grants) == MAX_TOKENS:
            raise TokenFileInvalid(f"more than {MAX_TOKENS} tokens", path, number)
        grant = _parse_line(words, path, number)
        if grant.name in names:
            raise TokenFileInvalid("its name stands in an earlier line, too", path, number)
        if grant.digest in digests:
            raise TokenFileInvalid("its token stands in an earlier line, too", path, number)
        names.add(grant.name)
        digests.add(grant.digest)
        grants.append(grant)
    return tuple(grants)


def _parse_line(words: list[str], path: str, number: int) -> Grant:
    """One grant. No error quotes a word: it may be a token in a place where it does not belong."""
    if len(words) == 1:
        raise TokenFileInvalid(
            "a line has a name and a hash. If this is a token in plain text: the server keeps "
            "hashes only; 'lambda-split token NAME --from THIS --add-to NEW' makes the line of a "
            "token that devices already have",
            path,
            number,
        )
    if not NAME.fullmatch(words[0]):
        raise TokenFileInvalid(
            "a line begins with a name: at most 64 letters, digits, '.', '_', '@' or '-'",
            path,
            number,
        )
    digest = _DIGEST.fullmatch(words[1]) if len(words) > 1 else None
    if digest is None:
        raise TokenFileInvalid(
            "after the name comes sha256: and 64 lower-case hexadecimal digits, as 'lambda-split "
            "token' writes them",
            path,
            number,
        )
    max_sessions, revoked = None, False
    for word in words[2:]:
        limit = _MAX_SESSIONS.fullmatch(word)
        if limit is not None and max_sessions is None:
            max_sessions = int(limit[1])
        elif word == "revoked" and not revoked:
            revoked = True
        else:
            raise TokenFileInvalid(
                "after the hash there may be max-sessions=N (1 to 999999) and revoked, once each",
                path,
                number,
            )
    return Grant(words[0], bytes.fromhex(digest[1]), max_sessions, revoked)


def read_text(path: pathlib.Path) -> str:
    """A token file's text, not parsed yet. Warns where other users could change it.

    Raises:
        UsageError: it cannot be read, is too large, or is no text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
            others = os.fstat(file.fileno()).st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"--token-file {path}: {reason}") from error
    if others and os.name == "posix":
        _logger.warning("%s can be changed by other users of this machine", path)
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"--token-file {path}: more than {MAX_FILE_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"--token-file {path}: it is not text in UTF-8") from error

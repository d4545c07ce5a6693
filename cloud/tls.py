"""The server's side of TLS: a certificate that can be renewed while devices are connected."""

from __future__ import annotations

import logging
import os
import pathlib
import ssl
import stat

from lambda_split.errors import TlsFileInvalid

__all__ = ["ServerTls"]

_logger = logging.getLogger(__name__)
# For TLS 1.2; those of 1.3 are all of this kind: ephemeral keys, authenticated encryption.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class ServerTls:
    """A certificate chain and its key, read again on demand.

    Args:
        cert: PEM file: the server's certificate, then those that lead to the issuer.
        key: PEM file: its private key, without a pass phrase.

    Raises:
        TlsFileInvalid: a file cannot be read or used, or they do not belong together.
    """

    def __init__(self, cert: str | os.PathLike[str], key: str | os.PathLike[str]) -> None:
        self._cert = pathlib.Path(cert)
        self._key = pathlib.Path(key)
        self._current = self._load()
        self._front = self._load()
        # Called for each connection, before the certificate is chosen, with or without a name.
        self._front.sni_callback = self._choose

    @property
    def context(self) -> ssl.SSLContext:
        """For the listening side; always the same object, whatever is reloaded."""
        return self._front

    def reload(self) -> None:
        """Read both files again: new connections get them, open ones stay as they are.

        Raises:
            TlsFileInvalid: as in the constructor; the old certificate stays in use.
        """
        self._current = self._load()
        _logger.info("the certificate in %s is in use", self._cert)

    def _choose(
        self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        # A context of its own for each load: loading into one that is in use would leave it with a
        # certificate and no key where the second file turns out to be wrong.
        connection.context = self._current

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(["http/1.1"])
        # Sessions are long and new keys for each of them wanted, so that nobody resumes with these.
        context.num_tickets = 0
        for path in (self._cert, self._key):
            _check_readable(path)
        _warn_of_readers(self._key)
        try:
            context.load_cert_chain(self._cert, self._key, password=self._refuse_pass_phrase)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                reason = f"the key does not belong to the certificate in {self._cert}"
                raise TlsFileInvalid(reason, str(self._key)) from error
            what = (error.reason or str(error)).lower().replace("_", " ")
            reason = f"this and {self._key} are no certificate and key in PEM ({what})"
            raise TlsFileInvalid(reason, str(self._cert)) from error
        except (OSError, ValueError) as error:
            raise TlsFileInvalid(str(error), str(self._cert)) from error
        return context

    def _refuse_pass_phrase(self) -> str:
        # Otherwise OpenSSL would ask for it on the terminal, at a reload as well.
        raise TlsFileInvalid("the key has a pass phrase: give one without", str(self._key))


def _check_readable(path: pathlib.Path) -> None:
    """OpenSSL's own errors do not say which of two files it is."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise TlsFileInvalid(reason, str(path)) from error


def _warn_of_readers(key: pathlib.Path) -> None:
    if os.name == "posix" and key.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        _logger.warning("%s, the private key, is open to other users of this machine", key)

"""The device's side of TLS: whom it trusts, and what is wrong where it does not."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from typing import Final

from edge_runtime.tls_socket import TlsSocket
from lambda_split.errors import (
    CertificateExpired,
    CertificateNotYetValid,
    CertificateRejected,
    CertificateUnknownIssuer,
    CertificateWrongHost,
    TlsError,
    TlsFileInvalid,
    TlsMissing,
)

__all__ = ["client_context", "speaks_tls", "tls_error_of"]

# X509_V_ERR_… of OpenSSL's x509_vfy.h
_VERIFY_ERRORS: Final[dict[int, Callable[[str], TlsError]]] = {
    9: CertificateNotYetValid,
    10: CertificateExpired,
    **dict.fromkeys((2, 18, 19, 20, 21, 27), CertificateUnknownIssuer),
    **dict.fromkeys((62, 63, 64), CertificateWrongHost),
}
# What OpenSSL makes of an answer that is no TLS; the name depends on its version.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})


def client_context(ca_file: str | os.PathLike[str] | None = None) -> ssl.SSLContext:
    """Whom to trust: the system's issuers, and those in a file.

    Args:
        ca_file: PEM file with further issuers' certificates.

    Raises:
        TlsFileInvalid: it cannot be read, or holds no certificate.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = TlsSocket  # one thread reads while another writes
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError as error:
            raise TlsFileInvalid("it holds no certificate in PEM", os.fspath(ca_file)) from error
        except (OSError, ValueError) as error:  # ValueError: a path with a null character
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            raise TlsFileInvalid(reason, os.fspath(ca_file)) from error
    return context


def tls_error_of(url: str, error: BaseException | None) -> TlsError | None:
    """The typed error for a TLS handshake that failed for good.

    Args:
        url: Where to.
        error: What connecting raised.

    Returns:
        None where it failed for another reason, such as a lost connection.
    """
    if not isinstance(error, ssl.SSLError):
        return None
    if not isinstance(error, ssl.SSLCertVerificationError):
        return TlsMissing(url) if error.reason in _NO_TLS else None
    known = _VERIFY_ERRORS.get(error.verify_code)
    if known is not None:
        return known(url)
    return CertificateRejected(url, error.verify_message or str(error))


def speaks_tls(host: str, port: int, timeout_s: float) -> bool:
    """Whether a server answers TLS; asked where it did not answer plain HTTP.

    Nothing but the handshake is sent, so there is nothing that a certificate would have to protect.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=timeout_s) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return True
    except (OSError, ValueError):
        return False

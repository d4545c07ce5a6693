"""Certificates for tests, by an issuer made on the spot, and what can be wrong with them."""

from __future__ import annotations

import datetime as dt
import pathlib
from dataclasses import dataclass

import trustme

from cloud.tls import ServerTls

NOW = dt.datetime.now(dt.UTC)
YEAR = dt.timedelta(days=365)


@dataclass(frozen=True)
class Certificate:
    """A certificate chain and its key, in files."""

    cert: pathlib.Path
    key: pathlib.Path

    def tls(self) -> ServerTls:
        return ServerTls(self.cert, self.key)


class Issuer:
    """Issues certificates; its own is in ``ca_file``."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.ca_file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca_file)

    def issue(self, name: str, *hosts: str, **settings) -> Certificate:
        """Files named ``name``, for these hosts (this machine by default)."""
        leaf = self._ca.issue_cert(*(hosts or ("127.0.0.1", "localhost")), **settings)
        made = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        write(made, leaf)
        return made

    def replace(self, certificate: Certificate, *hosts: str, **settings) -> None:
        """Other content in the files that there are."""
        write(certificate, self._ca.issue_cert(*(hosts or ("127.0.0.1",)), **settings))


def write(certificate: Certificate, leaf: trustme.LeafCert) -> None:
    certificate.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    certificate.key.write_bytes(leaf.private_key_pem.bytes())
    certificate.key.chmod(0o600)

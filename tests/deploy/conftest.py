"""What the tests of ``deploy/`` share: models, bundles and certificates."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

import pytest
import trustme

from tests.end_to_end.conftest import bundle, checkpoint

__all__ = ["bundle", "checkpoint"]


@dataclass(frozen=True)
class Certificates:
    """PEM files: what devices trust, the server's chain, its key, and these two in one file."""

    authority: pathlib.Path
    chain: pathlib.Path
    key: pathlib.Path
    both: pathlib.Path


@pytest.fixture
def certificates(tmp_path: pathlib.Path) -> Certificates:
    """Of an authority made for the test, for ``localhost``."""
    authority = trustme.CA()
    server = authority.issue_cert("localhost")
    folder = tmp_path / "certificates"
    folder.mkdir()
    made = Certificates(*(folder / name for name in ("ca.pem", "crt.pem", "key.pem", "both.pem")))
    authority.cert_pem.write_to_path(made.authority)
    for pem in server.cert_chain_pems:
        pem.write_to_path(made.chain, append=True)
    server.private_key_pem.write_to_path(made.key)
    made.both.write_bytes(made.chain.read_bytes() + made.key.read_bytes())
    return made

"""Where what is measured comes from: what is wrong with it is told before anything starts."""

from __future__ import annotations

import pathlib
import re

import pytest

from bench.cases import LOOPBACK
from bench.request import Request
from bench.source import open_source
from export import ExportSettings, QuietProgress, export_bundle
from lambda_split.errors import ServerUnreachable, UsageError
from tests.servers import free_port
from tests.tiny_models import save_tiny


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny("llama", folder / "model")
    settings = ExportSettings()
    export_bundle(str(folder / "model"), folder / "bundle", settings, progress=QuietProgress())
    return folder / "bundle"


def request(bundle, url, token_file=None):
    return Request(
        bundle=str(bundle),
        url=url,
        token_file=token_file,
        links=(LOOPBACK,),
        prompt_tokens=8,
        max_new_tokens=4,
        repetitions=1,
        codec="fp16",
        out=pathlib.Path("nowhere"),
    )


def test_nobody_listens_at_the_address_that_was_given(bundle) -> None:
    url = f"ws://127.0.0.1:{free_port()}"
    with pytest.raises(ServerUnreachable, match=re.escape(url)):
        open_source(request(bundle, url))


@pytest.mark.parametrize("url", ["ws://127.0.0.1:99999", "ws://[::1", "ws://"])
def test_an_address_that_is_none(bundle, url) -> None:
    with pytest.raises(UsageError, match=re.escape(f"'{url}' is not a WebSocket address")):
        open_source(request(bundle, url))


def test_a_token_that_would_cross_a_network_unencrypted_is_told(bundle, tmp_path, caplog) -> None:
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "token").chmod(0o600)
    with pytest.raises(ServerUnreachable):  # the name is one that never resolves (RFC 6761)
        open_source(request(bundle, "ws://nobody.invalid:1", str(tmp_path / "token")))
    assert "the token and all hidden states cross the network unencrypted" in caplog.text


def test_a_token_file_that_is_not_there(bundle, tmp_path) -> None:
    missing = str(tmp_path / "token")
    with pytest.raises(UsageError, match="--token-file"):
        open_source(request(bundle, f"ws://127.0.0.1:{free_port()}", missing))

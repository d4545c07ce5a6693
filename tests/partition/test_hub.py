from __future__ import annotations

import itertools
import logging
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from huggingface_hub import constants

from lambda_split.errors import CheckpointNotFound, UnsafeWeights
from lambda_split.partition import load_head, load_tail, load_trunk, open_checkpoint
from lambda_split.split import Split
from tests.hub_server import COMMIT, HubServer, serve_hub
from tests.partition.conftest import Tiny
from tests.partition.test_adapters import make_adapter

REPOSITORY = "owner/tiny"


def use_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    # huggingface_hub reads the environment when it is imported; these are what it made of it.
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", url)


@pytest.fixture
def hub(
    tiny: Callable[[str], Tiny], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubServer]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve_hub({REPOSITORY: tiny("llama").folder}) as server:
        use_endpoint(monkeypatch, server.url)
        yield server


def shards_of(folder: pathlib.Path) -> set[str]:
    return {path.name for path in folder.glob("*.safetensors")}


def test_opening_fetches_only_config_and_index(hub: HubServer) -> None:
    checkpoint = open_checkpoint(REPOSITORY)
    assert checkpoint.id == REPOSITORY
    assert checkpoint.revision == COMMIT
    assert hub.fetched == ["config.json", "model.safetensors.index.json"]


def test_a_hub_id_and_its_folder_have_the_same_fingerprint(
    hub: HubServer, tiny: Callable[[str], Tiny]
) -> None:
    assert open_checkpoint(REPOSITORY).fingerprint == tiny("llama").checkpoint.fingerprint


def test_head_and_tail_fetch_only_their_shards_and_the_trunk_the_rest(hub: HubServer) -> None:
    checkpoint = open_checkpoint(REPOSITORY)
    split = Split(1, 1)
    load_head(checkpoint, split)
    load_tail(checkpoint, split)
    for_device = {name for name in hub.fetched if name.endswith(".safetensors")}
    checkpoint.witnesses(split)
    everything = shards_of(hub.repositories[REPOSITORY])
    assert {name for name in hub.fetched if name.endswith(".safetensors")} == for_device
    assert 0 < len(for_device) < len(everything)
    load_trunk(checkpoint, split.trunk(checkpoint.layer_count))
    assert {name for name in hub.fetched if name.endswith(".safetensors")} == everything
    assert len(hub.fetched) == len(set(hub.fetched))


def test_an_adapter_can_come_from_the_hub(
    hub: HubServer, tiny: Callable[[str], Tiny], tmp_path: pathlib.Path
) -> None:
    folder = make_adapter(tiny("llama"), tmp_path / "adapter", target_modules=["q_proj"])
    hub.repositories["owner/adapter"] = pathlib.Path(folder)
    from_hub = open_checkpoint(REPOSITORY, lora=["owner/adapter"])
    assert from_hub.lora == ("owner/adapter",)
    local = open_checkpoint(REPOSITORY, lora=[folder])
    assert from_hub.fingerprint == local.fingerprint


def test_text_files_are_fetched_on_demand(hub: HubServer) -> None:
    checkpoint = open_checkpoint(REPOSITORY)
    path = checkpoint.text_file("tokenizer.json")
    assert path is not None
    assert path.read_bytes() == (hub.repositories[REPOSITORY] / "tokenizer.json").read_bytes()
    assert checkpoint.text_file("chat_template.jinja") is None


def test_what_is_cached_works_offline(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    load_head(open_checkpoint(REPOSITORY), Split(1, 1))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    checkpoint = open_checkpoint(REPOSITORY)
    assert checkpoint.revision == COMMIT
    load_head(checkpoint, Split(1, 1))
    with pytest.raises(CheckpointNotFound, match="HF_HUB_OFFLINE"):
        load_trunk(checkpoint, range(1, 5))


@pytest.mark.parametrize(
    ("model", "revision", "reason"),
    [
        ("owner/absent", None, "no such model on the Hub"),
        (REPOSITORY, "v9", "no revision 'v9'"),
        ("not a/valid id!", None, "cannot be the id"),
        ("owner/empty", None, "no config.json"),
        ("owner/gated", None, "gated"),
    ],
)
def test_what_the_hub_refuses_is_said(
    hub: HubServer, tmp_path: pathlib.Path, model: str, revision: str | None, reason: str
) -> None:
    hub.repositories |= {"owner/empty": tmp_path, "owner/gated": hub.repositories[REPOSITORY]}
    hub.gated.add("owner/gated")
    with pytest.raises(CheckpointNotFound, match=reason):
        open_checkpoint(model, revision=revision)


def test_a_server_that_is_not_there_is_said_at_once(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_endpoint(monkeypatch, "http://127.0.0.1:9")
    naps: list[float] = []  # between the library's own retries
    monkeypatch.setattr("time.sleep", naps.append)
    with pytest.raises(CheckpointNotFound, match="did not answer"):
        open_checkpoint(REPOSITORY)
    assert naps == []


@pytest.mark.parametrize(("status", "asked"), [(503, 2), (429, 2), (403, 1), (404, 1), (599, 1)])
@pytest.mark.parametrize("model", ["mistyped", REPOSITORY])
def test_a_hub_that_fails_is_said_soon(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, model: str, status: int, asked: int
) -> None:
    naps: list[float] = []
    monkeypatch.setattr("time.sleep", naps.append)
    hub.failures = itertools.repeat(status)
    with pytest.raises(CheckpointNotFound, match=f"no such folder.*status {status}"):
        open_checkpoint(model)
    assert (hub.failed, sum(naps)) == (asked, asked - 1)


def test_a_failure_that_passes_is_none(hub: HubServer) -> None:
    hub.failures = iter([503])
    assert open_checkpoint(REPOSITORY).revision == COMMIT
    assert hub.failed == 1


def test_a_name_without_an_owner_is_not_waited_for(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lambda_split.partition.hub._FOLDER_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_endpoint(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        begin = time.monotonic()
        with pytest.raises(CheckpointNotFound, match="did not answer"):
            open_checkpoint("mistyped")
        assert time.monotonic() - begin < constants.HF_HUB_ETAG_TIMEOUT


def test_where_there_is_a_log_the_library_does_not_print_its_lines_as_well(
    hub: HubServer, caplog: pytest.LogCaptureFixture
) -> None:
    library = logging.getLogger("huggingface_hub")
    library.addHandler(logging.StreamHandler())
    open_checkpoint(REPOSITORY)
    assert library.handlers == []
    library.warning("once")
    assert caplog.messages == ["once"]


def test_pickled_weights_are_refused_without_fetching_them(
    hub: HubServer, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    config = hub.repositories[REPOSITORY] / "config.json"
    (folder / "config.json").write_bytes(config.read_bytes())
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    hub.repositories["owner/pickled"] = folder
    with pytest.raises(UnsafeWeights):
        open_checkpoint("owner/pickled")
    assert "pytorch_model.bin" not in hub.fetched


def test_the_environment_chooses_endpoint_and_token(hub: HubServer, tmp_path: pathlib.Path) -> None:
    hub.gated.add(REPOSITORY)
    code = (
        "import sys; from lambda_split.partition import open_checkpoint as o; print(o(sys.argv[1]))"
    )
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "hf_secret",
        "HF_HOME": str(tmp_path / "home"),
    }
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", code, REPOSITORY],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert COMMIT in done.stdout
    assert hub.tokens == {"Bearer hf_secret"}

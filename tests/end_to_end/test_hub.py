"""A model by its Hugging Face id: the device's export and the server fetch what each needs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.models import Size, write_checkpoint
from edge_runtime import TextGenerator
from lambda_split.bundle import load_bundle
from tests.hub_server import COMMIT, serve_hub
from tests.servers import serving

# Written with one shard a layer, so that head, trunk and tail lie in different files.
SIZE = Size("tiny", width=64, layers=6, heads=4, intermediate=96, vocab=320)
ID = "someone/tiny-llama"
PROMPT = list(range(5, 25))


def _shard(number: int) -> str:
    return f"model-{number:05}-of-{SIZE.layers + 2:05}.safetensors"


@pytest.mark.slow
def test_export_and_serve_by_id_fetch_only_their_own_shards(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "model"
    write_checkpoint(SIZE, folder)
    with serve_hub({ID: folder}) as hub:
        for name, value in {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "device-cache"))
        subprocess.run(
            [
                *(sys.executable, "-m", "lambda_split.cli", "export", ID),
                *("--out", str(tmp_path / "bundle"), "--weights", "fp32", "--quiet"),
            ],
            check=True,
            env=os.environ,
        )
        fetched = {name for name in hub.fetched if name.endswith(".safetensors")}
        assert fetched == {_shard(number) for number in (1, 2, 7, 8)}

        hub.fetched.clear()
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "server-cache"))
        with serving(ID, "--dtype", "float32") as server:
            fetched = {name for name in hub.fetched if name.endswith(".safetensors")}
            assert fetched == {_shard(number) for number in (3, 4, 5, 6)}
            bundle = load_bundle(tmp_path / "bundle")
            assert (bundle.manifest.model.id, bundle.manifest.model.revision) == (ID, COMMIT)
            with TextGenerator.open(bundle, server.url, codec="fp32") as generator:
                found = generator.generate(PROMPT, max_new_tokens=16).token_ids
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    output = whole.generate(torch.tensor([PROMPT]), max_new_tokens=16, do_sample=False)
    assert list(found) == output[0, len(PROMPT) :].tolist()

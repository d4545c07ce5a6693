"""The ways to generate: all make the same tokens, and what crosses is what should."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading

import msgspec
import pytest
import torch
from transformers import LlamaForCausalLM
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect
from websockets.sync.server import serve as serve_websockets

from bench.cloud_device import cloud_device
from bench.cloud_model import CloudModel
from bench.device_process import device_process
from bench.edge_device import EdgeDevice
from bench.link import emulated_link
from bench.memory import peak_rss
from bench.orders import CloudOnly, EdgeOnly, Generate, SplitEnds
from bench.plan import edge_splits
from bench.prompts import make_prompt
from bench.serving import serve
from bench.split_device import split_device
from export import ExportSettings, export_bundle
from lambda_split.cli import main
from lambda_split.errors import ProcessFailed, PromptTooLong, ServerUnreachable
from lambda_split.partition import open_checkpoint
from lambda_split.split import Split
from tests.bench.crossing import crossed
from tests.bench.figures import settings
from tests.servers import free_port
from tests.tiny_models import LAYERS, save_tiny

TOKENS = 6
PROMPT = tuple(range(5, 45))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("llama")
    save_tiny("llama", folder)
    return folder


@pytest.fixture(scope="module")
def expected(model) -> tuple[int, ...]:
    """What the library's whole model makes of the prompt."""
    whole = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)
    made = whole.generate(
        torch.tensor([PROMPT]), max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False
    )
    return tuple(made[0, len(PROMPT) :].tolist())


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    settings = ExportSettings(split=Split(1, 1), further_splits=edge_splits(LAYERS), weights="fp32")
    export_bundle(str(model), folder, settings)
    return folder


def _order(tokens: int = TOKENS, **changes: object) -> Generate:
    return Generate(token_ids=PROMPT, text="", max_new_tokens=tokens, **changes)


@pytest.mark.slow
def test_the_whole_model_in_the_cloud(model, expected) -> None:
    whole = CloudModel(open_checkpoint(str(model)), "float32")
    assert tuple(whole.generate(PROMPT, TOKENS)) == expected
    assert tuple(whole.generate(PROMPT, TOKENS)) == expected  # nothing is left of the first
    with pytest.raises(PromptTooLong, match="506 tokens but the session holds 512"):
        list(whole.generate(range(506), 7))


@pytest.mark.slow
def test_the_whole_model_on_the_device(bundle, expected) -> None:
    device = EdgeDevice(
        EdgeOnly(
            bundle=str(bundle),
            head_split=edge_splits(LAYERS)[0],
            tail_split=edge_splits(LAYERS)[1],
            max_positions=64,
            threads=1,
        )
    )
    for _ in range(2):
        found = device.generate(_order())
        assert found.token_ids == expected
        assert (found.prompt_tokens, found.new_tokens) == (len(PROMPT), TOKENS)
        assert found.rest.seconds >= found.rest.head_s + found.rest.tail_s > 0
    with pytest.raises(PromptTooLong):
        device.generate(_order(25))


@pytest.mark.slow
def test_a_split_that_sends_new_positions_or_everything(model, bundle, expected) -> None:
    with serve(str(model), Split(1, 1), settings(threads=1)) as server:
        assert server is not None
        assert peak_rss(server.pid) > 50e6
        setup = SplitEnds(
            bundle=str(bundle),
            split=Split(1, 1),
            url=server.url,
            codec="fp32",
            max_positions=64,
            threads=1,
        )
        with split_device(setup) as device:
            new = device.generate(_order())
            everything = device.generate(_order(everything=True))
            held = device.generate(_order(1, afresh=False))
    assert new.token_ids == everything.token_ids == expected
    assert held.token_ids == expected[:1]
    row = 64 * 4  # bytes of a position
    header = 28
    # 40 positions in a prompt's pieces, then one at a time, each in a frame.
    assert new.first.bytes_up % row == header * (new.first.bytes_up // row // len(PROMPT))
    assert new.rest.bytes_up == new.rest.bytes_down == (TOKENS - 1) * (row + header)
    assert (new.first.round_trips, new.rest.round_trips) == (1, TOKENS - 1)
    rows = sum(range(len(PROMPT) + 1, len(PROMPT) + TOKENS))
    assert rows * row < everything.rest.bytes_up < rows * row * 1.02
    assert everything.rest.round_trips == TOKENS - 1
    # The prompt's last position only.
    assert held.first.bytes_up == row + header


@pytest.mark.slow
def test_only_text_crosses_to_a_whole_model(model) -> None:
    text = "Once upon a time"
    order = Generate(token_ids=(), text=text, max_new_tokens=TOKENS)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serve(str(model), "cloud-only", settings(threads=1)))
        assert server is not None
        link = stack.enter_context(emulated_link(server.address, ""))
        url = f"ws://{link.address[0]}:{link.address[1]}"
        device = stack.enter_context(cloud_device(CloudOnly(url=url)))
        shaken = link.carried()
        found = device.generate(order)
        carried = link.carried() - shaken
        for refused, code, reason in (
            ("no JSON", 1007, "malformed"),
            ('{"text": "", "max_new_tokens": 1}', 1007, "length >= 1"),
            ('{"text": "a"}', 1007, "max_new_tokens"),
            ('{"text": "a", "max_new_tokens": 600}', 1008, "512 positions"),
        ):
            with connect(server.url) as socket:
                socket.send(refused)
                with pytest.raises(ConnectionClosedError, match=reason) as closed:
                    socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == code
    assert found.new_tokens == TOKENS
    assert found.rest.trunk_s > 0
    # A header of two bytes and a mask up; two bytes for each token and the end down.
    down = found.first.bytes_down + found.rest.bytes_down + 2 * (TOKENS + 1)
    assert crossed((carried.up, carried.down), up=found.first.bytes_up + 6, down=down), carried
    assert found.first.bytes_down + found.rest.bytes_down >= len(found.text.encode())


@pytest.mark.slow
def test_a_server_that_is_there_already(model, bundle, tmp_path, capfd) -> None:
    small = ["--prompt-tokens", "8", "--max-new-tokens", "3", "--repetitions", "1"]
    small += ["--max-context", "0", "--modes", "split", "--link", "loopback", "--codec", "fp32"]
    given = ["--bundle", str(bundle), "--out", str(tmp_path / "out")]
    nobody = f"ws://127.0.0.1:{free_port()}"
    assert main(["bench", *given, *small, "--url", nobody]) == 1
    assert f"cannot reach {nobody}" in capfd.readouterr().err
    with serve(str(model), Split(0, 0), settings(threads=1)) as server:
        assert server is not None
        # A path may be what a proxy before the server goes by; nobody asks for it here.
        assert main(["bench", *given, *small, "--url", f"{server.url}/a?b"]) == 0  # on with it
    assert "| split 1 + 1 | loopback | " in capfd.readouterr().out
    found = json.loads((tmp_path / "out" / "results.json").read_bytes())
    assert [each["server_peak_rss"] for each in found["measurements"]] == [None] * 3
    by_split = {
        tuple(each["case"]["split"].values()): tuple(each["runs"][0]["socket"].values())
        for each in found["measurements"]
    }
    row = 64 * 4
    up, frames = 10 * row + 3 * (28 + 8), 3 * (28 + 4)
    for split, rows in (((1, 1), 10), ((0, 1), 10), ((5, 0), 3)):  # of (5, 0) what is sampled from
        assert crossed(by_split[split], up=up, down=rows * row + frames), by_split
    assert bundle.is_dir()


def test_a_device_process_that_fails_says_why(tmp_path, capfd) -> None:
    setup = SplitEnds(
        bundle=str(tmp_path),
        split=Split(1, 1),
        url="ws://127.0.0.1:1",
        codec="fp16",
        max_positions=8,
        threads=1,
    )
    with pytest.raises(ProcessFailed, match="the device side failed"), device_process(setup):
        pass
    assert "is not a bundle" in capfd.readouterr().err


def test_a_device_process_of_nobody_ends_without_a_word() -> None:
    command = [sys.executable, "-m", "bench.device"]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # The benchmark is killed while its device does what it was told.
    with serve_websockets(list, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever).start()
        setup = CloudOnly(url=f"ws://127.0.0.1:{server.socket.getsockname()[1]}")
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "w") as nowhere:
            done = subprocess.run(
                command,
                input=msgspec.json.encode(setup).decode() + "\n",
                stdout=nowhere,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        server.shutdown()
    assert (done.returncode, done.stderr) == (1, "")


def test_nobody_serves_a_cloud_model() -> None:
    url = f"ws://127.0.0.1:{free_port()}"
    with pytest.raises(ServerUnreachable), cloud_device(CloudOnly(url=url)):
        pass


def test_a_prompt_has_as_many_tokens_as_wanted() -> None:
    prompt = make_prompt(lambda text: [len(word) for word in text.split()], str, 200)
    assert prompt.token_ids[:6] == (3, 5, 4, 3, 7, 2)
    assert len(prompt.token_ids) == 200
    assert prompt.text(3) == "(3, 5, 4)"


def test_a_prompt_of_a_start_token_only_has_a_text() -> None:
    """A service of a whole model is sent text, and there has to be some."""
    prompt = make_prompt(
        lambda text: [0, *map(len, text.split())], lambda ids: "x" * len(ids[1:]), 2
    )
    assert (prompt.text(1), prompt.text(2)) == ("The", "x")

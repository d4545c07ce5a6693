"""The device side runs where torch, transformers, diffusers and onnx cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edge_runtime import TextGenerator
from tests.servers import serving

_BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "diffusers", "onnx", "safetensors"}:
            raise ModuleNotFoundError(f"{name} is blocked in this test", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.slow
def test_the_whole_device_side(bundle, checkpoint) -> None:
    exported = bundle("llama", weights="int4")
    with serving(str(checkpoint("llama"))) as server:
        with TextGenerator.open(exported, server.url) as generator:
            expected = generator.generate("the quick brown", max_new_tokens=16)
        arguments = [
            *("generate", "--bundle", str(exported.path), "--url", server.url, "--json"),
            *("--prompt", "the quick brown", "--max-new-tokens", "16"),
        ]
        run = subprocess.run(
            [
                *(sys.executable, "-c"),
                f"{_BLOCKED}\nfrom lambda_split.cli import main\nsys.exit(main({arguments!r}))",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert tuple(found["token_ids"]) == expected.token_ids
    assert found["text"] == expected.text


def test_the_blocker_blocks() -> None:
    run = subprocess.run(
        [sys.executable, "-c", f"{_BLOCKED}\nimport torch"], capture_output=True, check=False
    )
    assert run.returncode == 1
    assert b"is blocked" in run.stderr


@pytest.mark.parametrize("command", ["export", "serve"])
def test_a_missing_extra_is_answered_with_the_command_that_adds_it(command, tmp_path) -> None:
    arguments = [command, "some-model"]
    if command == "export":
        arguments += ["--out", str(tmp_path / "bundle")]
    run = subprocess.run(
        [
            *(sys.executable, "-c"),
            f"{_BLOCKED}\nfrom lambda_split.cli import main\nsys.exit(main({arguments!r}))",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    extra = "export" if command == "export" else "cloud"
    assert f"pip install 'lambda-split[{extra}]'" in run.stderr


def test_import_is_light() -> None:
    """What the device imports, and nothing heavier; the time itself is in docs/benchmarks.md."""
    run = subprocess.run(
        [sys.executable, "-c", "import sys, edge_runtime; print(*sorted(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    heavy = {"torch", "transformers", "diffusers", "onnx", "export", "cloud", "matplotlib"}
    assert not loaded & heavy


def test_the_local_api_names_its_extra() -> None:
    blocked = _BLOCKED.replace('"torch"', '"starlette", "torch"')
    script = "from lambda_split.cli import main\nsys.exit(main(['api', {}]))"
    for arguments, code in (("'--help'", 0), ("'--bundle', 'x', '--url', 'ws://x'", 2)):
        run = subprocess.run(
            [sys.executable, "-c", f"{blocked}\n{script.format(arguments)}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == code, run.stderr
    assert "pip install 'lambda-split[api]'" in run.stderr

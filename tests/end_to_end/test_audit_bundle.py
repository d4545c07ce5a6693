"""The audit runs what a device runs: a bundle's graphs, in the weight format that they have."""

from __future__ import annotations

import json

import pytest

from lambda_split.cli import main

SMALLEST = [
    *("--texts", "2", "--prompt-tokens", "10", "--reply-tokens", "3", "--known", "100"),
    *("--inverter-steps", "2", "--defence", "gaussian:0.1", "--beams", "1", "--threads", "1"),
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n\n".join(f"{n * 7919} is the number {'of it ' * 60}" for n in range(20)))
    return path


@pytest.mark.slow
def test_packed_weights_do_not_hide_a_token(checkpoint, bundle, texts, tmp_path) -> None:
    exported = bundle("llama", 2, 1, "int4")
    arguments = [str(checkpoint("llama")), "--bundle", str(exported.path), "--text", str(texts)]
    assert main(["audit", *arguments, "--out", str(tmp_path), *SMALLEST]) == 0
    results = json.loads((tmp_path / "results.json").read_text())["text"]
    settings = {(one["setting"]["head_layers"], one["setting"]["weights"])
                for one in results["findings"]}  # fmt: skip
    assert settings == {(2, "int4")}
    found = {
        one["attack"]: one["recovered"]["value"]
        for one in results["findings"]
        if one["setting"]["defence"] == "none"
    }
    assert found["vocabulary search"] >= 0.9  # of a random model, whose states are close
    assert found["replay"] >= 0.5


@pytest.mark.slow
def test_a_bundle_of_another_model_and_a_split_that_it_lacks(
    checkpoint, bundle, texts, tmp_path, capsys
) -> None:
    exported = str(bundle("llama", 2, 1, "int4").path)
    common = ["--bundle", exported, "--text", str(texts), "--out", str(tmp_path), *SMALLEST]
    assert main(["audit", str(checkpoint("qwen3")), *common]) == 2
    assert "was cut from another checkpoint than MODEL" in capsys.readouterr().err
    assert main(["audit", str(checkpoint("llama")), *common, "--split", "1,1"]) == 2
    assert "the bundle has no split" in capsys.readouterr().err

"""What an exported folder contains, and how large it is."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from export import ExportSettings, QuietProgress, export_bundle
from export.verification import LIMITS
from lambda_split.bundle import load_bundle
from lambda_split.errors import SplitImpossible, UsageError
from lambda_split.partition import open_checkpoint
from lambda_split.split import Split
from tests.tiny_models import tiny_tokenizer

FORMATS = ("fp32", "fp16", "int8", "int4")


def _weights(bundle) -> int:
    return bundle.manifest.files["weights.data"].size


def test_the_manifest_says_what_was_cut(export, checkpoint_folder) -> None:
    manifest = export("qwen3").manifest
    checkpoint = open_checkpoint(str(checkpoint_folder("qwen3")))
    assert manifest.model.id == "tiny-model"
    assert manifest.model.family == "qwen3"
    assert manifest.model.fingerprint == checkpoint.fingerprint
    assert manifest.model.witnesses == checkpoint.witnesses(Split())
    assert manifest.split == Split(1, 1)
    geometry = manifest.geometry
    assert (geometry.hidden_size, geometry.layer_count) == (64, 6)
    assert (geometry.vocab_size, geometry.max_positions) == (320, 512)
    assert [(kv.heads, kv.head_dim) for kv in manifest.graphs["head"].kv] == [(2, 24)]
    assert set(manifest.files) == {"head.onnx", "tail.onnx", "weights.data", "tokenizer.json"}


@pytest.mark.parametrize("weights", FORMATS)
def test_each_format_is_within_its_limits_and_the_manifest_says_how_far(weights, export) -> None:
    manifest = export("llama-tied", weights=weights).manifest
    found, limits = manifest.verification, LIMITS[weights]
    assert manifest.graphs["head"].weights == weights
    assert found.tokens == 384
    assert 0 < found.head_relative_error <= limits.head_relative
    assert 0 <= found.kl_divergence <= limits.kl_divergence
    assert 0.5 < found.top1_agreement <= 1
    assert found.head_max_error > 0
    assert found.logits_max_error > 0


def test_fewer_bits_mean_smaller_files_and_larger_errors(export) -> None:
    bundles = [export("llama-tied", weights=weights) for weights in FORMATS]
    sizes = [_weights(bundle) for bundle in bundles]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.25 * sizes[0]
    errors = [bundle.manifest.verification.head_relative_error for bundle in bundles]
    assert errors == sorted(errors)


@pytest.mark.parametrize("weights", FORMATS)
def test_a_tied_embedding_is_stored_once(weights, export) -> None:
    tied, own = export("llama-tied", weights=weights), export("llama", weights=weights)
    bits = {"fp32": 32, "fp16": 16, "int8": 8 + 32 / 32 + 8 / 32, "int4": 4 + 32 / 64 + 4 / 64}
    table = 320 * 64 * bits[weights] / 8
    assert 0.95 * table < _weights(own) - _weights(tied) < 1.3 * table  # the rest is alignment


def test_both_graphs_read_the_tied_table_from_one_place(export) -> None:
    bundle = export("llama-tied", weights="int4")

    def place(part: str, name: str) -> tuple[str, ...]:
        model = onnx.load(bundle.file(f"{part}.onnx"), load_external_data=False)
        (tensor,) = (t for t in model.graph.initializer if t.name.endswith(name))
        entries = {entry.key: entry.value for entry in tensor.external_data}
        return entries["location"], entries["offset"], entries["length"]

    for what in ("packed", "scales"):  # zero points are small enough here to be inline
        assert place("head", f"embedding.{what}") == place("tail", f"lm_head.{what}")


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_widths_that_are_no_multiple_of_a_block(weights, tmp_path) -> None:
    config = LlamaConfig(
        hidden_size=40,
        intermediate_size=72,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=320,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "odd")
    tiny_tokenizer().save_pretrained(tmp_path / "odd")
    settings = ExportSettings(Split(), weights=weights)
    out = tmp_path / "bundle"
    manifest = export_bundle(str(tmp_path / "odd"), out, settings, progress=QuietProgress())
    # A head size of 10 is not one that GroupQueryAttention takes.
    assert manifest.graphs["head"].attention == "concat-kv"
    assert manifest.verification.tokens == 128
    load_bundle(out)


def test_shared_kv_for_an_odd_head_size_is_refused(tmp_path) -> None:
    config = LlamaConfig(
        hidden_size=40,
        intermediate_size=72,
        num_hidden_layers=3,
        num_attention_heads=4,
        vocab_size=320,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "odd")
    settings = ExportSettings(Split(), attention="shared-kv")
    with pytest.raises(UsageError, match="multiple of 8"):
        export_bundle(str(tmp_path / "odd"), tmp_path / "out", settings, progress=QuietProgress())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["odd"]


def test_fewer_positions_can_be_asked_for(checkpoint_folder, tmp_path) -> None:
    settings = ExportSettings(Split(0, 0), max_positions=20)
    manifest = export_bundle(
        str(checkpoint_folder("gpt2")), tmp_path / "out", settings, progress=QuietProgress()
    )
    assert manifest.geometry.max_positions == 20
    assert manifest.verification.tokens == 20


@pytest.mark.parametrize("positions", [0, -1, 513])
def test_positions_that_the_model_does_not_have_are_refused(positions) -> None:
    with pytest.raises(UsageError, match="between 1 and the model's 512"):
        ExportSettings(Split(), max_positions=positions).positions(512)


def test_positions_of_a_longrope_model_end_where_its_angles_change(export) -> None:
    assert export("phi3-longrope").manifest.geometry.max_positions == 384


def test_a_split_without_trunk_is_refused(checkpoint_folder, tmp_path) -> None:
    settings = ExportSettings(Split(3, 3))
    with pytest.raises(SplitImpossible):
        export_bundle(
            str(checkpoint_folder("llama")), tmp_path / "out", settings, progress=QuietProgress()
        )
    assert list(tmp_path.iterdir()) == []


def test_nothing_in_a_bundle_names_the_exporting_machine(export, checkpoint_folder) -> None:
    bundle = export("llama-tied", weights="int4")
    source = str(checkpoint_folder("llama-tied").parent).encode()
    for name in (*bundle.manifest.files, "manifest.json"):
        raw = (bundle.path / name).read_bytes()
        assert source not in raw
        assert str(bundle.path.parent).encode() not in raw


def test_the_same_export_gives_the_same_bytes(export, checkpoint_folder, tmp_path) -> None:
    first = export("llama-tied", weights="int4")
    settings = ExportSettings(Split(), weights="int4")
    second = export_bundle(
        str(checkpoint_folder("llama-tied")), tmp_path / "out", settings, progress=QuietProgress()
    )
    assert first.manifest.files == second.files
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert json.loads(text)["files"]["weights.data"]["size"] == _weights(first)
    assert np.isfinite(second.verification.kl_divergence)

"""Opening checkpoints: what is read, what identifies them, and what is refused."""

from __future__ import annotations

import json
import pathlib
import shutil
import struct
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from safetensors.torch import load_file, save_file

from lambda_split.errors import (
    CheckpointError,
    CheckpointInvalid,
    CheckpointNotFound,
    SplitImpossible,
    TensorMismatch,
    TensorMissing,
    UnsafeWeights,
    UnsupportedFamily,
    UsageError,
)
from lambda_split.partition import (
    Checkpoint,
    load_head,
    load_part,
    load_tail,
    load_trunk,
    open_checkpoint,
    supported_families,
)
from lambda_split.partition.fingerprint import choose_witnesses
from lambda_split.split import Split
from tests.partition.conftest import Tiny
from tests.partition.split_model import SplitModel
from tests.tiny_models import LAYERS, VARIANTS, save_tiny

SPLIT = Split(1, 1)
TRUNK = range(1, LAYERS - 1)


@pytest.fixture
def llama(tiny: Callable[[str], Tiny], tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the sharded llama that a test may damage."""
    folder = tmp_path / "llama"
    shutil.copytree(tiny("llama").folder, folder)
    return folder


def weight_map(folder: pathlib.Path) -> dict[str, str]:
    return json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]


def is_trunk(name: str) -> bool:
    return name.startswith(tuple(f"model.layers.{number}." for number in TRUNK))


def edit_json(path: pathlib.Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- what is read -------------------------------------------------------------------------------


def test_every_supported_family_is_tested() -> None:
    assert {VARIANTS[name]().model_type for name in VARIANTS} == set(supported_families())


def test_export_never_opens_shards_that_only_the_trunk_needs(llama: pathlib.Path) -> None:
    places = weight_map(llama)
    elsewhere = {shard for name, shard in places.items() if not is_trunk(name)}
    garbage = set(places.values()) - elsewhere
    assert garbage
    for index, shard in enumerate(sorted(garbage)):
        if index % 2:
            (llama / shard).unlink()
        else:
            (llama / shard).write_bytes(b"garbage")
    checkpoint = open_checkpoint(str(llama))
    load_head(checkpoint, SPLIT)
    load_tail(checkpoint, SPLIT)
    assert checkpoint.witnesses(SPLIT)
    with pytest.raises(CheckpointInvalid):
        load_trunk(checkpoint, TRUNK)


def test_serving_never_opens_shards_of_head_and_tail(llama: pathlib.Path) -> None:
    places = weight_map(llama)
    needed = {shard for name, shard in places.items() if is_trunk(name)}
    garbage = set(places.values()) - needed
    assert garbage
    for shard in garbage:
        (llama / shard).write_bytes(b"garbage")
    checkpoint = open_checkpoint(str(llama))
    load_trunk(checkpoint, TRUNK)
    checkpoint.witness_digests(checkpoint.layer_tensors(TRUNK))
    with pytest.raises(CheckpointInvalid):
        load_tail(checkpoint, SPLIT)


def test_each_part_reads_exactly_its_own_tensors(
    llama: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = open_checkpoint(str(llama))
    read: list[str] = []
    original = Checkpoint.read

    def spy(self: Checkpoint, names: object, **more: object) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in original(self, names, **more):
            read.append(name)
            yield name, tensor

    monkeypatch.setattr(Checkpoint, "read", spy)
    for part in ("head", "trunk", "tail"):
        load_part(checkpoint, part, SPLIT)
    assert sorted(read) == sorted(checkpoint.tensor_names)


def test_one_stored_tensor_is_held_at_a_time(
    llama: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    original = Checkpoint.read

    def spy(self: Checkpoint, names: object, **more: object) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in original(self, names, **more):
            assert all(reference() is None for reference in held)
            held.append(weakref.ref(tensor))
            yield name, tensor
            del tensor

    monkeypatch.setattr(Checkpoint, "read", spy)
    load_trunk(open_checkpoint(str(llama)), TRUNK, dtype=torch.bfloat16)
    assert len(held) == 9 * len(TRUNK)


def test_parts_do_not_depend_on_the_files_once_loaded(llama: pathlib.Path) -> None:
    parts = SplitModel(open_checkpoint(str(llama)), SPLIT)
    token_ids = torch.arange(5, 25)[None]
    before = parts.forward(token_ids, 0)
    for path in llama.glob("*.safetensors"):
        path.write_bytes(b"")  # in place: a mapped tensor would fault or change
    assert torch.equal(parts.forward(token_ids, 0), before)


def test_parts_are_frozen_and_in_evaluation_mode(llama: pathlib.Path) -> None:
    head = load_head(open_checkpoint(str(llama)), SPLIT)
    assert not any(parameter.requires_grad for parameter in head.parameters())
    assert not head.training
    assert not any(tensor.is_meta for tensor in (*head.parameters(), *head.buffers()))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_checkpoint_of_the_bare_decoder_is_read_without_its_prefix(
    tiny: Callable[[str], Tiny], tmp_path: pathlib.Path, name: str
) -> None:
    case = tiny(name)
    case.model.base_model.save_pretrained(tmp_path)
    if name == "llama":  # it has no LM head of its own, and none is tied
        checkpoint = open_checkpoint(str(tmp_path))
        with pytest.raises(TensorMissing, match=r"tail needs: lm_head\.weight"):
            load_tail(checkpoint, SPLIT)
        edit_json(tmp_path / "config.json", tie_word_embeddings=True)
    parts = SplitModel(open_checkpoint(str(tmp_path)), SPLIT)
    if name == "gpt2":
        token_ids = torch.arange(5, 25)[None]
        with torch.no_grad():
            expected = case.model(token_ids).logits
        assert torch.allclose(parts.forward(token_ids, 0), expected, atol=1e-4)


def test_a_stored_lm_head_wins_over_the_tie(tmp_path: pathlib.Path) -> None:
    # As transformers 5 does.
    model = save_tiny("llama", tmp_path)
    edit_json(tmp_path / "config.json", tie_word_embeddings=True)
    tail = load_tail(open_checkpoint(str(tmp_path)), SPLIT)
    assert torch.equal(tail.lm_head.weight, model.lm_head.weight)


def test_the_attention_function_is_chosen_per_part(llama: pathlib.Path) -> None:
    checkpoint = open_checkpoint(str(llama))
    eager = load_trunk(checkpoint, TRUNK, attention="eager")
    default = load_trunk(checkpoint, TRUNK)
    assert eager.stack.config._attn_implementation == "eager"
    assert default.stack.config._attn_implementation == "sdpa"
    assert eager.stack.layers[0].self_attn.config is eager.stack.config


def test_measures_come_from_the_config(tiny: Callable[[str], Tiny]) -> None:
    qwen3, gpt2 = tiny("qwen3").checkpoint, tiny("gpt2").checkpoint
    assert (qwen3.layer_count, qwen3.hidden_size, qwen3.vocab_size) == (LAYERS, 64, 320)
    assert (qwen3.kv_heads, qwen3.head_dim, qwen3.max_positions) == (2, 24, 512)
    assert (gpt2.kv_heads, gpt2.head_dim, gpt2.max_positions) == (4, 16, 512)
    assert tiny("phi3-longrope").checkpoint.max_positions == 384


def test_text_files_are_found_by_name_only(llama: pathlib.Path) -> None:
    checkpoint = open_checkpoint(str(llama))
    assert checkpoint.text_file("tokenizer.json") == llama / "tokenizer.json"
    assert checkpoint.text_file("chat_template.jinja") is None
    with pytest.raises(UsageError):
        checkpoint.text_file("../secret")


# --- what identifies it -------------------------------------------------------------------------


def test_sharding_and_volatile_config_keys_do_not_change_the_fingerprint(
    tiny: Callable[[str], Tiny], tmp_path: pathlib.Path
) -> None:
    save_tiny("llama", tmp_path)
    edit_json(tmp_path / "config.json", transformers_version="0", torch_dtype="float16")
    checkpoint = open_checkpoint(str(tmp_path))
    assert checkpoint.fingerprint == tiny("llama").checkpoint.fingerprint
    assert len(checkpoint.fingerprint) == 32
    assert checkpoint.id == tmp_path.name


def test_the_config_changes_the_fingerprint(llama: pathlib.Path) -> None:
    before = open_checkpoint(str(llama)).fingerprint
    edit_json(llama / "config.json", rms_norm_eps=1e-5)
    assert open_checkpoint(str(llama)).fingerprint != before


def test_witnesses_tell_other_weights_of_the_same_shape_apart(tmp_path: pathlib.Path) -> None:
    save_tiny("llama", tmp_path / "a", seed=1)
    save_tiny("llama", tmp_path / "b", seed=2)
    a, b = open_checkpoint(str(tmp_path / "a")), open_checkpoint(str(tmp_path / "b"))
    assert a.fingerprint == b.fingerprint
    witnesses = a.witnesses(SPLIT)
    assert len(witnesses) == 16
    assert {name.split(".")[2] for name in witnesses} == {str(number) for number in TRUNK}
    assert a.witness_digests(witnesses) == witnesses
    found = b.witness_digests(witnesses)
    assert not any(found[name] == digest for name, digest in witnesses.items())


def test_witnesses_are_matrices_where_there_are_any() -> None:
    matrices = {f"{number}.weight": (4, 4) for number in range(20)}
    norms = {f"{number}.norm": (4,) for number in range(20)}
    chosen = choose_witnesses(norms | matrices)
    assert len(chosen) == 16
    assert set(chosen) <= matrices.keys()
    assert choose_witnesses({"0.norm": (4,)}) == ("0.norm",)
    assert choose_witnesses({}) == ()


def test_witnesses_cover_dtype_and_shape(tmp_path: pathlib.Path) -> None:
    save_tiny("llama", tmp_path)
    path = tmp_path / "model.safetensors"
    name = "model.layers.2.self_attn.q_proj.weight"
    tensors = load_file(path)
    digests = set()
    for changed in (tensors[name], tensors[name].view(32, 128), tensors[name].view(torch.int32)):
        save_file(tensors | {name: changed}, path)
        digests.add(open_checkpoint(str(tmp_path)).witness_digests([name])[name])
    assert len(digests) == 3


def test_witnesses_of_an_unknown_tensor_are_refused(llama: pathlib.Path) -> None:
    with pytest.raises(TensorMissing):
        open_checkpoint(str(llama)).witness_digests(["model.layers.99.x"])


# --- what is refused ----------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    for model, reason in (
        (str(tmp_path / "absent"), "no such folder"),
        (str(tmp_path / "file"), "give the folder"),
        (str(tmp_path), "no config.json"),
        ("./absent", "no such folder"),
        ("", "empty"),
        ("x" * 5000, "too long"),
    ):
        with pytest.raises(CheckpointNotFound, match=reason):
            open_checkpoint(model)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "not JSON"),
        ("{}", "no model_type"),
        ('{"model_type": 3}', "no model_type"),
        ('{"model_type": "llama", "num_hidden_layers": 1000000000}', "num_hidden_layers"),
        ('{"model_type": "gpt2", "n_layer": "6"}', "n_layer"),
        ('{"model_type": "llama", "hidden_size": "wide"}', "hidden_size"),
        ('{"model_type": "llama", "x": "%s"}' % ("x" * 9_000_000), "larger than"),
    ],
    ids=range(9),
)
def test_a_malformed_config_is_refused(llama: pathlib.Path, content: str, reason: str) -> None:
    (llama / "config.json").write_text(content)
    with pytest.raises(CheckpointInvalid, match=reason):
        open_checkpoint(str(llama))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_attention_heads": 0},
        {"rope_parameters": {"rope_type": "unheard-of"}},
        {"hidden_act": "unheard-of"},
        {"hidden_size": -1},
        {"model_type": "mistral", "sliding_window": 0},
        {"sliding_window": "x"},
        {"head_dim": 2**42},
        {"hidden_size": 2**42},
        {"vocab_size": 0},
        {"vocab_size": True},
        {"intermediate_size": 2**60},
        {"num_key_value_heads": 3},
        {"max_position_embeddings": 0},
        {"max_position_embeddings": -1},
        {"max_position_embeddings": 10**30},
        {"pad_token_id": 100_000},
        {"partial_rotary_factor": 2**42},
        {"model_type": "phi3", "partial_rotary_factor": 2**42},
        {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}},
        {"model_type": "olmo2", "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}},
        {"rope_theta": "x", "rope_parameters": None},
    ],
    ids=str,
)
def test_a_config_that_makes_no_model_is_refused(
    llama: pathlib.Path, changes: dict[str, object]
) -> None:
    edit_json(llama / "config.json", **changes)
    with pytest.raises(CheckpointError):
        load_trunk(open_checkpoint(str(llama)), TRUNK)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "mamba"}, "'mamba' are not supported"),
        ({"model_type": "made-up", "auto_map": {"AutoConfig": "evil.Config"}}, "made-up"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized .gptq"),
        ({"model_type": "qwen2", "layer_types": ["chunked_attention"] * 6}, "chunked_attention"),
    ],
)
def test_an_unsupported_family_is_refused(
    llama: pathlib.Path, changes: dict[str, object], reason: str
) -> None:
    edit_json(llama / "config.json", **changes)
    with pytest.raises(UnsupportedFamily, match=reason):
        open_checkpoint(str(llama))


def test_remote_code_of_a_known_family_is_ignored(llama: pathlib.Path) -> None:
    (llama / "evil.py").write_text("raise SystemExit('ran')")
    edit_json(llama / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    load_head(open_checkpoint(str(llama)), SPLIT)


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "model.bin", 3, ""]
)
def test_an_index_that_leads_elsewhere_is_refused(llama: pathlib.Path, shard: object) -> None:
    edit_json(llama / "model.safetensors.index.json", weight_map={"lm_head.weight": shard})
    with pytest.raises(CheckpointInvalid, match="cannot be the name of a shard"):
        open_checkpoint(str(llama))


@pytest.mark.parametrize("content", ["{", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_a_malformed_index_is_refused(llama: pathlib.Path, content: str) -> None:
    (llama / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointInvalid):
        open_checkpoint(str(llama))


def test_a_shard_without_what_the_index_says_is_refused(llama: pathlib.Path) -> None:
    places = weight_map(llama)
    name = "model.layers.2.mlp.up_proj.weight"
    path = llama / places[name]
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors | {"other": torch.zeros(1)}, path)
    with pytest.raises(CheckpointInvalid, match="which the index says it holds"):
        load_trunk(open_checkpoint(str(llama)), TRUNK)


def test_a_missing_shard_is_refused(llama: pathlib.Path) -> None:
    (llama / weight_map(llama)["lm_head.weight"]).unlink()
    with pytest.raises(CheckpointInvalid, match="it is not in"):
        load_tail(open_checkpoint(str(llama)), SPLIT)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 1000) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 99)
        + b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'.ljust(
            41
        ),
    ],
    ids=["empty", "huge length", "beyond the end", "not an object", "offsets beyond the end"],
)
def test_a_malformed_safetensors_header_is_refused(llama: pathlib.Path, header: bytes) -> None:
    (llama / "model.safetensors").write_bytes(header)
    with pytest.raises(CheckpointInvalid):
        open_checkpoint(str(llama))


def test_pickled_or_no_weights_are_refused(llama: pathlib.Path) -> None:
    (llama / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointInvalid, match="no weights"):
        open_checkpoint(str(llama))
    (llama / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsafeWeights):
        open_checkpoint(str(llama))


@pytest.mark.parametrize(
    ("replacement", "found"),
    [(torch.zeros(3, 64), r"\[3, 64\]"), (torch.zeros(64, 64, dtype=torch.int32), "int32")],
    ids=["shape", "dtype"],
)
def test_a_tensor_that_contradicts_the_config_is_refused(
    llama: pathlib.Path, replacement: torch.Tensor, found: str
) -> None:
    name = "model.layers.3.self_attn.q_proj.weight"
    path = llama / weight_map(llama)[name]
    save_file(load_file(path) | {name: replacement}, path)
    checkpoint = open_checkpoint(str(llama))
    load_head(checkpoint, SPLIT)
    with pytest.raises(TensorMismatch, match=found):
        load_trunk(checkpoint, TRUNK)


def test_a_tensor_that_is_absent_is_named(llama: pathlib.Path) -> None:
    places = weight_map(llama)
    del places["model.layers.3.self_attn.q_proj.weight"]
    edit_json(llama / "model.safetensors.index.json", weight_map=places)
    with pytest.raises(TensorMissing, match=r"trunk needs: model\.layers\.3\.self_attn\.q_proj"):
        load_trunk(open_checkpoint(str(llama)), TRUNK)


@pytest.mark.parametrize("layers", [range(0), range(5, 7), range(-1, 3), range(0, 6, 2)], ids=str)
def test_layers_that_the_model_has_not_are_refused(
    tiny: Callable[[str], Tiny], layers: range
) -> None:
    with pytest.raises(SplitImpossible):
        load_trunk(tiny("llama").checkpoint, layers)


@pytest.mark.parametrize("part", ["head", "trunk", "tail"])
def test_a_split_without_a_trunk_is_refused(tiny: Callable[[str], Tiny], part: str) -> None:
    with pytest.raises(SplitImpossible):
        load_part(tiny("llama").checkpoint, part, Split(3, 3))

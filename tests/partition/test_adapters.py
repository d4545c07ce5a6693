"""Merged tensors against peft's own ``merge_and_unload``."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from lambda_split.errors import AdapterError
from lambda_split.partition import load_trunk, open_checkpoint
from lambda_split.split import Split
from tests.partition.conftest import Tiny
from tests.partition.split_model import SplitModel

LLAMA_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def copy_of(case: Tiny) -> PreTrainedModel:
    return type(case.model).from_pretrained(case.folder, dtype=torch.float32)


def make_adapter(case: Tiny, folder: pathlib.Path, seed: int = 0, **settings: object) -> str:
    """Let peft write an adapter whose matrices are all random (fresh ones have B = 0)."""
    model = get_peft_model(copy_of(case), LoraConfig(task_type="CAUSAL_LM", **settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.2, generator=generator)
    model.save_pretrained(folder)
    return str(folder)


def merged_by_peft(case: Tiny, *adapters: str) -> PreTrainedModel:
    model = copy_of(case)
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return model.eval()


def largest_difference(case: Tiny, *adapters: str) -> tuple[float, float]:
    """Of logits: ours to peft's, and peft's to the model without adapters."""
    token_ids = torch.randint(3, 300, (1, 24), generator=torch.Generator().manual_seed(1))
    checkpoint = open_checkpoint(str(case.folder), lora=adapters)
    ours = SplitModel(checkpoint, Split(1, 1)).forward(token_ids, 0)
    with torch.no_grad():
        theirs = merged_by_peft(case, *adapters)(token_ids).logits
        plain = case.model(token_ids).logits
    return float((ours - theirs).abs().max()), float((theirs - plain).abs().max())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", {"target_modules": LLAMA_LAYERS, "r": 4, "lora_alpha": 8}),
        ("llama", {"target_modules": LLAMA_LAYERS, "r": 4, "lora_alpha": 8, "use_rslora": True}),
        (
            "llama",
            {
                "target_modules": LLAMA_LAYERS,
                "r": 4,
                "lora_alpha": 8,
                "rank_pattern": {"q_proj": 2, r"layers\.[35]\..*up_proj": 6},
                "alpha_pattern": {r"model.layers.2.self_attn.v_proj": 32, "o_proj": 3},
            },
        ),
        ("llama", {"target_modules": ["embed_tokens", "lm_head", "q_proj"], "r": 4}),
        ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "r": 4, "lora_alpha": 8}),
        (
            "gpt2",
            {"target_modules": ["c_attn"], "r": 4, "lora_alpha": 8, "fan_in_fan_out": True},
        ),
        ("phi3", {"target_modules": ["qkv_proj", "gate_up_proj"], "r": 4}),
    ],
    ids=[
        "llama",
        "rank-stabilized",
        "patterns",
        "embedding",
        "saved-modules",
        "gpt2",
        "fan-in",
        "phi3",
    ],
)
def test_merging_equals_peft(
    tiny: Callable[[str], Tiny], tmp_path: pathlib.Path, name: str, settings: dict[str, object]
) -> None:
    case = tiny(name)
    adapter = make_adapter(case, tmp_path / "adapter", **settings)
    error, effect = largest_difference(case, adapter)
    assert effect > 0.1
    assert error < 1e-4 * max(1.0, effect)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_two_adapters_in_a_row_equal_peft(
    tiny: Callable[[str], Tiny], tmp_path: pathlib.Path, name: str
) -> None:
    case = tiny(name)
    targets = ["q_proj", "v_proj"] if name == "llama" else ["c_attn"]
    first = make_adapter(case, tmp_path / "first", 1, target_modules=targets, r=4)
    second = make_adapter(case, tmp_path / "second", 2, target_modules=targets, r=2)
    error, effect = largest_difference(case, first, second)
    assert effect > 0.1
    assert error < 1e-4 * max(1.0, effect)


def test_adapters_change_the_fingerprint_and_are_named(
    tiny: Callable[[str], Tiny], tmp_path: pathlib.Path
) -> None:
    case = tiny("llama")
    first = make_adapter(case, tmp_path / "first", 1, target_modules=["q_proj"])
    second = make_adapter(case, tmp_path / "second", 2, target_modules=["q_proj"])
    found = {
        open_checkpoint(str(case.folder), lora=lora).fingerprint
        for lora in ([], [first], [second], [first, second], [second, first])
    }
    assert len(found) == 5
    assert open_checkpoint(str(case.folder), lora=[first, second]).lora == ("first", "second")


def test_scaling_changes_the_fingerprint(
    tiny: Callable[[str], Tiny], tmp_path: pathlib.Path
) -> None:
    case = tiny("llama")
    adapter = make_adapter(case, tmp_path, target_modules=["q_proj"], lora_alpha=8)
    before = open_checkpoint(str(case.folder), lora=[adapter]).fingerprint
    edit_config(tmp_path, lora_alpha=9)
    assert open_checkpoint(str(case.folder), lora=[adapter]).fingerprint != before


def edit_config(folder: pathlib.Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"peft_type": "IA3"}, "peft_type"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"r": 0}, "r is 0"),
        ({"r": True}, "r is True"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'"),
        ({"rank_pattern": [1]}, "rank_pattern is not an object"),
        ({"rank_pattern": {"(": 2}}, "invalid pattern"),
        ({"alpha_pattern": {"q_proj": -1}}, "-1"),
    ],
)
def test_what_cannot_be_merged_is_refused(
    tiny: Callable[[str], Tiny], tmp_path: pathlib.Path, changes: dict[str, object], reason: str
) -> None:
    case = tiny("llama")
    adapter = make_adapter(case, tmp_path, target_modules=["q_proj"])
    edit_config(tmp_path, **changes)
    with pytest.raises(AdapterError, match=reason):
        open_checkpoint(str(case.folder), lora=[adapter])


def test_a_dora_adapter_of_peft_is_refused(
    tiny: Callable[[str], Tiny], tmp_path: pathlib.Path
) -> None:
    case = tiny("llama")
    adapter = make_adapter(case, tmp_path, target_modules=["q_proj"], use_dora=True)
    with pytest.raises(AdapterError, match="use_dora"):
        open_checkpoint(str(case.folder), lora=[adapter])
    edit_config(tmp_path, use_dora=False)  # its magnitude vectors give it away
    with pytest.raises(AdapterError, match="more than a LoRA update"):
        open_checkpoint(str(case.folder), lora=[adapter])


def test_an_adapter_for_a_shared_embedding_is_refused(
    tiny: Callable[[str], Tiny], tmp_path: pathlib.Path
) -> None:
    case = tiny("llama-tied")
    adapter = make_adapter(case, tmp_path, target_modules=["embed_tokens"])
    with pytest.raises(AdapterError, match="LM head shares"):
        open_checkpoint(str(case.folder), lora=[adapter])


def test_an_adapter_for_another_model_is_refused(
    tiny: Callable[[str], Tiny], tmp_path: pathlib.Path
) -> None:
    adapter = make_adapter(tiny("gpt2"), tmp_path, target_modules=["c_attn"])
    with pytest.raises(AdapterError, match="another model"):
        open_checkpoint(str(tiny("llama").folder), lora=[adapter])


def test_a_folder_without_an_adapter_is_refused(
    tiny: Callable[[str], Tiny], tmp_path: pathlib.Path
) -> None:
    with pytest.raises(AdapterError, match="lacks"):
        open_checkpoint(str(tiny("llama").folder), lora=[str(tmp_path)])


def edit_tensors(folder: pathlib.Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def test_malformed_matrices_are_refused(
    tiny: Callable[[str], Tiny], tmp_path: pathlib.Path
) -> None:
    case = tiny("llama")
    adapter = make_adapter(case, tmp_path, target_modules=["q_proj"])
    key = "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight"

    edit_tensors(tmp_path, lambda t: t.update({key: torch.zeros(8, 65)}))
    with pytest.raises(AdapterError, match="not \\[64, 64\\]"):
        load_trunk(open_checkpoint(str(case.folder), lora=[adapter]), range(1, 5))
    # A few megabytes whose product would take 256 GiB.
    huge = {key: torch.zeros(8, 1 << 18), key.replace("lora_A", "lora_B"): torch.zeros(1 << 18, 8)}
    edit_tensors(tmp_path, lambda t: t.update(huge))
    with pytest.raises(AdapterError, match="is \\[262144, 262144\\], not \\[64, 64\\]"):
        load_trunk(open_checkpoint(str(case.folder), lora=[adapter]), range(1, 5))
    edit_tensors(tmp_path, lambda t: t.update({key: torch.zeros(7, 64)}))
    with pytest.raises(AdapterError, match="do not fit each other"):
        load_trunk(open_checkpoint(str(case.folder), lora=[adapter]), range(1, 5))
    edit_tensors(tmp_path, lambda t: t.update({"something.else": torch.zeros(1)}))
    with pytest.raises(AdapterError, match="not a name that peft writes"):
        open_checkpoint(str(case.folder), lora=[adapter])
    edit_tensors(tmp_path, lambda t: (t.pop("something.else"), t.pop(key)))
    with pytest.raises(AdapterError, match="only one of its two matrices"):
        open_checkpoint(str(case.folder), lora=[adapter])
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(AdapterError):
        open_checkpoint(str(case.folder), lora=[adapter])

"""A LoRA adapter, merged at export and at serve, gives peft's text; one side alone is refused."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from edge_runtime import TextGenerator
from export import ExportSettings, QuietProgress, export_bundle
from lambda_split.errors import FingerprintRefused
from lambda_split.split import Split
from tests.servers import serving

PROMPT = list(range(5, 25))


@pytest.fixture
def adapter(checkpoint, tmp_path) -> str:
    model = AutoModelForCausalLM.from_pretrained(checkpoint("llama"), dtype=torch.float32)
    # Every layer is adapted, so that head, trunk and tail each have to merge their share.
    names = ["q_proj", "v_proj", "down_proj"]
    adapted = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=names)
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.2, generator=generator)
    adapted.save_pretrained(tmp_path / "adapter")
    return str(tmp_path / "adapter")


@pytest.mark.slow
def test_an_adapter_merged_on_both_sides(bundle, checkpoint, adapter, tmp_path) -> None:
    folder = str(checkpoint("llama"))
    settings = ExportSettings(split=Split(1, 1), weights="fp32", lora=(adapter,))
    export_bundle(folder, tmp_path / "bundle", settings, progress=QuietProgress())
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    plain = whole.generate(torch.tensor([PROMPT]), max_new_tokens=24, do_sample=False)
    merged = PeftModel.from_pretrained(whole, adapter).merge_and_unload()
    expected = merged.generate(torch.tensor([PROMPT]), max_new_tokens=24, do_sample=False)
    assert plain.tolist() != expected.tolist()
    with serving(folder, "--dtype", "float32", "--lora", adapter) as server:
        with TextGenerator.open(tmp_path / "bundle", server.url, codec="fp32") as generator:
            found = generator.generate(PROMPT, max_new_tokens=24).token_ids
        with pytest.raises(FingerprintRefused, match="LoRA"):
            TextGenerator.open(bundle("llama"), server.url)
    assert list(found) == expected[0, len(PROMPT) :].tolist()

"""The central test: export, serve and generate equals the whole model, token for token.

The trunk runs in a process of its own and is reached over a real socket; head and tail run under
onnxruntime with fp32 weights; hidden states cross as fp32.
"""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from edge_runtime import TextGenerator
from tests.servers import serving
from tests.tiny_models import VARIANTS, VOCABULARY

SPLITS = [(1, 1), (0, 0), (2, 1)]
PROMPT_LENGTHS = (1, 7, 300)
NEW_TOKENS = 32


def _prompt(length: int) -> list[int]:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()


def _reference(model, prompt: list[int]) -> list[int]:
    output = model.generate(
        torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
    )
    return output[0, len(prompt) :].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_generation_equals_the_whole_model(variant, bundle, checkpoint) -> None:
    folder = checkpoint(variant)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = {length: _reference(model, _prompt(length)) for length in PROMPT_LENGTHS}
    assert len({tuple(tokens) for tokens in expected.values()}) == len(PROMPT_LENGTHS)
    # One server that holds every layer serves every split.
    arguments = ("--head-layers", "0", "--tail-layers", "0", "--dtype", "float32")
    with serving(str(folder), *arguments) as server:
        for split in SPLITS:
            with TextGenerator.open(
                bundle(variant, *split), server.url, codec="fp32", chunk_tokens=128
            ) as generator:
                for length in PROMPT_LENGTHS:
                    result = generator.generate(_prompt(length), max_new_tokens=NEW_TOKENS)
                    found = list(result.token_ids)
                    assert found == expected[length], f"split {split}, prompt of {length}"


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["fp16", "bf16"])
def test_half_precision_wires_report_how_many_tokens_agree(
    codec, bundle, checkpoint, record_property
) -> None:
    folder = checkpoint("llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    agreeing = total = 0
    with (
        serving(str(folder), "--dtype", "float32") as server,
        TextGenerator.open(bundle("llama"), server.url, codec=codec) as generator,
    ):
        for length in (1, 7, 40, 300):
            expected = _reference(model, _prompt(length))
            found = generator.generate(_prompt(length), max_new_tokens=NEW_TOKENS).token_ids
            pairs = list(zip(found, expected, strict=True))
            # After the first difference the texts go separate ways: count up to it.
            agreeing += next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
            total += len(pairs)
    record_property("agreeing_tokens", f"{agreeing} of {total} with {codec}")
    print(f"{codec} wire: {agreeing} of {total} tokens before the first difference")
    # Random weights have near ties in their logits, so a few texts may part early.
    assert agreeing >= total // 4

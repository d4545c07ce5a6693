"""The shipped model through the whole system: equality, quality by weight format, chat."""

from __future__ import annotations

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from edge_runtime import Message, TextGenerator
from lambda_split.partition import open_checkpoint
from tests.servers import serving

FOLDER = open_checkpoint("demo").text_file("config.json").parent


@pytest.fixture(scope="module")
def server():
    with serving("demo", "--dtype", "float32") as running:
        yield running


@pytest.fixture(scope="module")
def whole():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)


def _prompts() -> list[list[Message]]:
    prompts = json.loads((FOLDER / "prompts.json").read_text(encoding="utf-8"))
    return [
        [Message(turn["role"], turn["content"]) for turn in prompt["messages"]]
        for prompt in prompts
    ]


@pytest.mark.slow
def test_twenty_prompts_token_for_token_over_an_fp16_wire(bundle, server, whole) -> None:
    prompts = _prompts()
    assert len(prompts) == 20
    with TextGenerator.open(bundle("demo"), server.url, codec="fp16") as generator:
        for prompt in prompts:
            result = generator.generate(prompt, max_new_tokens=64)
            ids = torch.tensor([result.prompt_token_ids])
            expected = whole.generate(ids, max_new_tokens=64, do_sample=False)
            assert list(result.token_ids) == expected[0, ids.shape[1] :].tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "tolerance"), [("fp32", 0.001), ("fp16", 0.001), ("int8", 0.01), ("int4", 0.10)]
)
def test_perplexity_by_weight_format(weights, tolerance, bundle, server, whole) -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    lines = (FOLDER / "heldout.jsonl").read_text(encoding="utf-8").splitlines()
    ours = reference = 0.0
    tokens = 0
    with TextGenerator.open(bundle("demo", weights=weights), server.url) as generator:
        for line in lines:
            document = json.loads(line)
            if "messages" in document:
                text = tokenizer.apply_chat_template(document["messages"], tokenize=False)
                ids = tokenizer.encode(text, add_special_tokens=False)
            else:
                ids = tokenizer.encode(document["text"])
            ours += generator.score(ids).sum()
            with torch.inference_mode():
                logits = whole(torch.tensor([ids])).logits[0, :-1].double()
            picked = logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])
            reference += picked.sum().item()
            tokens += len(ids) - 1
    found, expected = math.exp(-ours / tokens), math.exp(-reference / tokens)
    print(f"perplexity with {weights} ends: {found:.4f}, whole model: {expected:.4f}")
    assert abs(found / expected - 1) <= tolerance


@pytest.mark.slow
def test_a_second_turn_sends_only_its_own_positions(bundle, server) -> None:
    exported = bundle("demo")
    row = exported.manifest.geometry.hidden_size * 2  # fp16
    messages = [Message("user", "Tell me a story about a fox and a lantern.")]
    with TextGenerator.open(exported, server.url) as generator:
        first = generator.generate(messages, max_new_tokens=150)
        messages += [Message("assistant", first.text), Message("user", "Where did it happen?")]
        second = generator.generate(messages, max_new_tokens=60)
    with TextGenerator.open(exported, server.url) as generator:
        fresh = generator.generate(messages, max_new_tokens=60)
    assert second.text == fresh.text
    stats = second.stats
    # All of the first turn but its end token is still held by head, trunk and tail.
    assert stats.cached_tokens >= len(first.prompt_token_ids) + len(first.token_ids) - 2
    sent = stats.prompt_tokens - stats.cached_tokens + stats.completion_tokens - 1
    assert sent * row <= stats.bytes_up < sent * (row + 64)
    assert fresh.stats.bytes_up > stats.bytes_up + stats.cached_tokens * row

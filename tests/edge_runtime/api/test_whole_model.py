"""What clients are told is what the whole model thinks: ends, wire and trunk in fp32."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from export import ExportSettings, QuietProgress, export_bundle
from lambda_split.partition import open_checkpoint
from tests.edge_runtime.api.servers import running_api

FOLDER = open_checkpoint("demo").text_file("config.json").parent
MESSAGES = [{"role": "user", "content": "Tell me a story about a fox and a lantern."}]
TOKENS = 48

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def prompt_ids(tokenizer):
    return tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]


@pytest.fixture(scope="module")
def exact_client(trunk, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exact") / "bundle"
    export_bundle("demo", folder, ExportSettings(weights="fp32"), progress=QuietProgress())
    arguments = ("--bundle", str(folder), "--url", trunk.url, "--codec", "fp32")
    with running_api(*arguments) as api, api.client() as client:
        yield client


def test_the_answer_is_the_whole_model_s(exact_client, whole, tokenizer, prompt_ids) -> None:
    expected = whole.generate(torch.tensor([prompt_ids]), max_new_tokens=TOKENS, do_sample=False)
    stream = exact_client.chat.completions.create(
        model="demo", messages=MESSAGES, max_tokens=TOKENS, temperature=0, stream=True
    )
    said = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    new_ids = expected[0, len(prompt_ids) :]
    assert said == tokenizer.decode(new_ids, skip_special_tokens=True)


def test_log_probabilities_are_the_whole_model_s(
    exact_client, whole, tokenizer, prompt_ids
) -> None:
    answer = exact_client.completions.create(
        model="demo",
        prompt=prompt_ids,
        max_tokens=TOKENS,
        temperature=1.3,
        top_p=0.9,
        seed=3,
        logprobs=5,
    )
    found = answer.choices[0].logprobs
    # A text that was drawn may be cut into tokens in other ways: each token is looked up by itself.
    ids = [tokenizer.encode(token, add_special_tokens=False) for token in found.tokens]
    assert [len(one) for one in ids] == [1] * TOKENS
    new_ids = [one[0] for one in ids]
    with torch.no_grad():
        logits = whole(torch.tensor([[*prompt_ids, *new_ids]])).logits[0, len(prompt_ids) - 1 : -1]
    wanted = logits.double().log_softmax(-1)  # (TOKENS, vocab)
    for place, token in enumerate(new_ids):
        assert found.token_logprobs[place] == pytest.approx(wanted[place, token].item(), abs=1e-4)
        best = wanted[place].topk(5)
        likeliest = best.values.tolist()
        if token not in best.indices:  # then it is told of as well
            likeliest.append(wanted[place, token].item())
        top = found.top_logprobs[place]
        assert list(top.values()) == pytest.approx(likeliest, abs=1e-4)
        assert math.fsum(map(math.exp, top.values())) <= 1 + 1e-9
